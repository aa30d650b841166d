"""What a model needs in memory, by part, and how fast it is tuned: arithmetic over its configuration, no tensor made.

Counted are the tensors that Roslin's code holds at its fullest moment. What a process, a driver or an allocator's gaps
take besides is not.
"""

from roslin.memory.answering import (
    BLOCK_TOKENS,
    DRAFTED,
    DRAWING_BYTES,
    PROMPT_TOKENS,
    USABLE,
    Answering,
    Kept,
    answering,
    cache_tokens,
    token_bytes,
)
from roslin.memory.gpus import GPUS, Gpu, known_gpu
from roslin.memory.layers import NF4_BLOCK, RANK, adapter_count
from roslin.memory.parts import ADAPTERS, GIB, IN_HALVES, Device, Method, PassPrecision, Precision, gib
from roslin.memory.plan import Asked, TuningPlan, choose_tuning
from roslin.memory.speed import Work
from roslin.memory.tuning import GPU_LOSS_CHUNK, LOSS_CHUNK, Gradients, Moments, Settings, Tuning, tuning

__all__ = [
    "ADAPTERS",
    "BLOCK_TOKENS",
    "DRAFTED",
    "DRAWING_BYTES",
    "GIB",
    "GPUS",
    "GPU_LOSS_CHUNK",
    "IN_HALVES",
    "LOSS_CHUNK",
    "NF4_BLOCK",
    "PROMPT_TOKENS",
    "RANK",
    "USABLE",
    "Answering",
    "Asked",
    "Device",
    "Gpu",
    "Gradients",
    "Kept",
    "Method",
    "Moments",
    "PassPrecision",
    "Precision",
    "Settings",
    "Tuning",
    "TuningPlan",
    "Work",
    "adapter_count",
    "answering",
    "cache_tokens",
    "choose_tuning",
    "gib",
    "known_gpu",
    "token_bytes",
    "tuning",
]
