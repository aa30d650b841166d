"""Passes at the speed of the hardware: a block's forward and backward written out, and the products inside."""

from roslin.tune.passes.block import elementwise_for, recompute, speed_up
from roslin.tune.passes.products import PlainProducts, Products

__all__ = ["PlainProducts", "Products", "elementwise_for", "recompute", "speed_up"]
