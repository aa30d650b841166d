"""How a decoder's passes are run in tuning: written-out blocks where there are such, and what a plan recomputes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.memory.passes import written_out
from roslin.tune.passes import recompute, speed_up

if TYPE_CHECKING:
    from roslin.memory import TuningPlan
    from roslin.model import Decoder


def set_passes(decoder: Decoder, plan: TuningPlan) -> None:
    """Have a decoder's blocks run as planned. Raises MachineError where products in fp8 are asked for in vain."""
    if not written_out(decoder.config, plan.method, "cuda" if decoder.device.type == "cuda" else "cpu"):
        recompute(decoder, plan.checkpointed_layers)
        return
    products = None
    if plan.fp8:
        from roslin.tune.passes.fp8 import Fp8Products

        products = Fp8Products(decoder.device)
    speed_up(decoder, products=products, recomputed_layers=plan.checkpointed_layers)
