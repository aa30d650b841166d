"""Publishing: exports, hubs, and the model card with the evidence that it is made from."""

from roslin.publish.loss import TOO_FEW, LossComparison

__all__ = ["TOO_FEW", "LossComparison"]
