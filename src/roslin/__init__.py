"""Roslin makes, runs, judges and publishes instruction-following language models of the Dolly family."""

__version__ = "0.1.0"
