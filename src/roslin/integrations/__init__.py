"""Where users already are: transformers' pipeline, ModelScope's, and the interface on Roslin's engine."""

from roslin.integrations.instruction import InstructionPipeline, pipeline
from roslin.integrations.pipeline_files import add_pipelines

__all__ = ["InstructionPipeline", "add_pipelines", "pipeline"]
