"""Judging a model: benchmarks as the LM Evaluation Harness asks them, answers to records, limits, and the table."""
