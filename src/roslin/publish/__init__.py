"""Publishing: the model card."""

from roslin.publish.card import CardFacts, LossComparison, render_card, write_card

__all__ = ["CardFacts", "LossComparison", "render_card", "write_card"]
