"""Where a model runs and in which dtype, when the caller leaves it open."""

import torch

from roslin.errors import MachineError, UsageError
from roslin.model import ModelConfig
from roslin.model.fp8 import FP8

CACHES = {"auto": None, "fp8": FP8}
"""What keys and values can be kept in; None: as the weights are."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SMALL = 2**28
"""Parameters up to which a CPU computes in float32, so that an answer does not depend on what shares its batch.

Measured on one core of a Xeon with AMX: the shipped base takes 6.5 ms a token in float32 and 5.2 ms in bfloat16, and
26.5 ms and 9.9 ms a step of sixteen answers. At the size of a 2.8B model's matrices (two cores) bfloat16 is 1.5 times
faster for one answer and 4 times for sixteen, in half the memory.
"""


def pick_device(name: str) -> torch.device:
    """A device by name; `auto` is the GPU where there is one. Raises UsageError or MachineError if it is none."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"device is {name!r}; it must be auto, cpu, cuda or cuda:N.") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device is {name!r}; Roslin runs on cpu and cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MachineError(f"device is {name!r}, and torch sees {torch.cuda.device_count()} CUDA devices here.")
    return device


def pick_dtype(name: str, config: ModelConfig, device: torch.device) -> torch.dtype:
    """A dtype by name; `auto` is what runs this model best here. Raises UsageError for an unknown name.

    On a GPU: bfloat16, or float16 where the GPU lacks it (V100, T4). On a CPU: float32 for small models and for CPUs
    without bfloat16 instructions, else bfloat16.
    """
    if name != "auto":
        if name not in DTYPES:
            raise UsageError(f"dtype is {name!r}; it must be auto, {', '.join(DTYPES)}.")
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native and config.parameter_count > SMALL else torch.float32


def pick_cache(name: str) -> torch.dtype | None:
    """The dtype of keys and values by name; None: that of the weights. Raises UsageError for an unknown name."""
    if name not in CACHES:
        raise UsageError(f"cache is {name!r}; it must be {' or '.join(CACHES)}.")
    return CACHES[name]
