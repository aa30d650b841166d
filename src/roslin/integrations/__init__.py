"""Where users already are: transformers' pipeline, and its interface on Roslin's engine."""

from roslin.integrations.instruction import InstructionPipeline, pipeline
from roslin.integrations.transformers_files import add_pipeline

__all__ = ["InstructionPipeline", "add_pipeline", "pipeline"]
