"""The GPUs that are planned for, and what each can."""

from __future__ import annotations

import re
from dataclasses import dataclass

from roslin.memory.parts import GIB

MEASURED_REACH = 718 / 989
"""Share of the datasheet's peak that products reach in passes, measured at Pythia 6.9B on an H200 (718 TFLOP/s)."""
LIMITED_REACH = 0.55
"""The same, assumed for boards that their power limit of 72 to 150 W slows down."""
COPY_REACH = 3.01 / 3.35
"""Share of the datasheet's bandwidth that a copy reaches, measured on an H100."""


@dataclass(frozen=True)
class Gpu:
    """One model of GPU. Peaks and bandwidths are those of NVIDIA's datasheets, of the SXM part where there are two."""

    name: str
    """As `roslin plan --gpu` has it."""
    title: str
    memory: int
    """Bytes that torch can use of it: what the driver and error correction take is gone."""
    flops: float
    """Dense 16-bit operations a second."""
    bandwidth: float
    """Bytes a second."""
    fp32_flops: float
    """Operations a second in fp32, without tensor cores."""
    link: float
    """Bytes a second in each direction to the other GPUs of its machine: NVLink, or PCIe."""
    bf16: bool = True
    fp8: bool = False
    reach: float = MEASURED_REACH
    """Share of the peak that large products reach."""


def _gpu(
    name: str,
    title: str,
    gib: float,
    tflops: float,
    fp32_tflops: float,
    gigabytes: float,
    link: float,
    **more: bool | float,
) -> Gpu:
    peaks = (tflops * 1e12, gigabytes * 1e9, fp32_tflops * 1e12, link * 1e9)
    return Gpu(name, title, int(gib * GIB), *peaks, **more)  # type: ignore[arg-type]


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", "T4 16 GB", 14.56, 65, 8.1, 320, 16, bf16=False, reach=LIMITED_REACH),
        _gpu("v100", "V100 16 GB", 15.77, 125, 15.7, 900, 150, bf16=False),
        _gpu("v100-32", "V100 32 GB", 31.73, 125, 15.7, 900, 150, bf16=False),
        _gpu("l4", "L4 24 GB", 22.03, 121, 30.3, 300, 32, fp8=True, reach=LIMITED_REACH),
        _gpu("a10", "A10 24 GB", 22.05, 125, 31.2, 600, 32, reach=LIMITED_REACH),
        _gpu("rtx-4090", "RTX 4090 24 GB", 23.6, 165, 82.6, 1008, 32, fp8=True),
        _gpu("a100-40", "A100 40 GB", 39.4, 312, 19.5, 1555, 300),
        _gpu("a100", "A100 80 GB", 79.1, 312, 19.5, 2039, 300),
        _gpu("h100", "H100 80 GB", 79.1, 989, 67, 3350, 450, fp8=True),
        _gpu("h200", "H200 141 GB", 139.7, 989, 67, 4800, 450, fp8=True),
        _gpu("b200", "B200 180 GB", 178.3, 2250, 80, 8000, 900, fp8=True),
    )
}
"""By name, from small to large."""

_WORDS = {
    "T4": "t4",
    "V100": "v100",
    "L4": "l4",
    "A10": "a10",
    "4090": "rtx-4090",
    "A100": "a100",
    "H100": "h100",
    "H200": "h200",
    "B200": "b200",
}
"""Words of the names that devices give themselves; of two sizes, the one that is more common."""


def known_gpu(device_name: str) -> Gpu | None:
    """The GPU that calls itself so; None for others, and for an H100 on PCIe, whose peak is lower than the SXM's."""
    words = re.split(r"[\s-]+", device_name)
    if "H100" in words and "PCIe" in words:
        return None
    return next((GPUS[_WORDS[word]] for word in words if word in _WORDS), None)
