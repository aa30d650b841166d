"""Publishing: the model card."""

from roslin.publish.card import FULL, AdapterUse, CardFacts, LossComparison, render_card, write_card

__all__ = ["FULL", "AdapterUse", "CardFacts", "LossComparison", "render_card", "write_card"]
