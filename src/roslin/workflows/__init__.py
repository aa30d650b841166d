"""Joining rooms: the demo; tuning with samples, evaluation and card."""
