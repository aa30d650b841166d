"""Bytes by part, and the words in which memory is asked for."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

Precision = Literal["fp32", "bf16", "int8", "int4"]
"""What weights are kept in to answer. bf16 is as large as fp16. int8, which is as large as fp8, and int4 are what
`roslin quantize` writes: int4 is for the matrices of layers, beside int8 for the tokens' rows."""
PassPrecision = Literal["fp32", "bf16", "fp16"]
"""What passes of tuning are computed in."""
Method = Literal["fp32", "bf16", "fp16", "lora", "qlora"]
"""How a model is tuned: all weights, in passes of a precision, or adapters with dropout beside frozen ones, these in 16
bits or nf4."""
ADAPTERS: tuple[Method, ...] = ("lora", "qlora")
IN_HALVES: tuple[Method, ...] = ("bf16", "fp16")
"""Those whose weights are in 16 bits and have a low half beside them."""
Device = Literal["cpu", "cuda"]

GIB = 2**30


class Parts:
    """Bytes by part."""

    def parts(self) -> dict[str, int]:
        """Each part by its name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    @property
    def total(self) -> int:
        """All parts together."""
        return sum(self.parts().values())

    def __str__(self) -> str:
        said = [f"{gib(count)} {name.replace('_', ' ')}" for name, count in self.parts().items() if count]
        return f"{' + '.join(said)} = {gib(self.total)} GiB"


def gib(count: int) -> str:
    """Bytes in GiB with three figures: 0.04, 5.17, 46.5, 345."""
    value = count / GIB
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"
