"""An estimate of the energy that tuning took, from the rated power of the boards and the time of stepping."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_SHARE = 0.5
"""Of its rated power, that a busy board draws at the least."""

_RATED = (
    (r"B200", 1000),
    (r"H200 NVL", 600),
    (r"H200|GH200", 700),
    (r"H100 NVL", 400),
    (r"H100 PCIe", 350),
    (r"H100", 700),
    (r"A100.*80GB PCIe", 300),
    (r"A100.*PCI[Ee]", 250),
    (r"A100", 400),
    (r"V100.*SXM2", 300),
    (r"V100.*PCI[Ee]", 250),
    (r"L40S", 350),
    (r"L40", 300),
    (r"L4", 72),
    (r"A10G", 300),
    (r"A10", 150),
    (r"T4", 70),
    (r"RTX 3090 Ti", 450),
    (r"RTX 3090", 350),
    (r"RTX 4090", 450),
)
"""Watts of a board by its maker's data sheet, by what its name holds; the first that fits."""

_OTHER_BOARD = r"\b(MIG|Laptop|Max-Q|Mobile)\b|RTX 4090 D\b"
"""What the name of a part of a board, or of a kind with less power, holds."""


@dataclass(frozen=True)
class Energy:
    """From `least` to `most` kWh, and the watts of all boards together that this goes by."""

    least: float
    most: float
    watts: int


def energy_of(gpus: Sequence[str], seconds: float) -> Energy | None:
    """What boards of these names took in so many seconds; None on a CPU, and where the power of one is not known."""
    rated = [_watts(name) for name in gpus]
    known = [watts for watts in rated if watts is not None]
    if not gpus or len(known) < len(rated):
        return None
    most = sum(known) * seconds / 3_600_000
    return Energy(LEAST_SHARE * most, most, sum(known))


def _watts(name: str) -> int | None:
    if re.search(_OTHER_BOARD, name):
        return None
    return next((watts for pattern, watts in _RATED if re.search(rf"(?<![A-Z0-9]){pattern}(?![0-9A-Z])", name)), None)
