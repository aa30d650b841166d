"""Choosing settings: the most exact tuning that fits a device's memory and costs no speed to speak of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from roslin.memory.answering import USABLE
from roslin.memory.gpus import GPUS
from roslin.memory.layers import RANK
from roslin.memory.speed import Work, update_seconds
from roslin.memory.tuning import Gradients, Moments, Settings, Tuning, tuning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from roslin.memory.gpus import Gpu
    from roslin.memory.parts import Device, Method, PassPrecision
    from roslin.model import ModelConfig

STEP = 256
"""Tokens by which passes are made shorter."""
WORTH: dict[Moments, float] = {"fp32": 1.10, "bf16": 1.02, "8bit": 1.0}
"""How much slower than the fastest settings more exact moments may be and still be chosen."""


@dataclass(frozen=True)
class Asked:
    """What a recipe fixes; None leaves it to the plan."""

    method: Method = "bf16"
    moments: Moments | None = None
    gradients: Gradients | None = None
    in_backward: bool = False
    recomputed_layers: int | None = None
    tokens_per_pass: int | None = None
    offload: bool = False
    fp8: bool = False
    rank: int = RANK
    """Of adapters."""
    adapters_beside: PassPrecision = "bf16"


@dataclass(frozen=True)
class TuningPlan:
    """Settings, what they need by part, and whether that fits."""

    method: Method
    settings: Settings
    tokens_per_pass: int
    needs: Tuning
    memory: int
    """Of the device, in bytes."""
    update_seconds: float | None
    """Of an average update; None where the device's speed is not known."""
    fp8: bool = False

    @property
    def moments(self) -> Moments:
        """What the optimizer's moments are kept in."""
        return self.settings.moments

    @property
    def gradients(self) -> Gradients:
        """What gradients of several passes are added up in."""
        return self.settings.gradients

    @property
    def in_backward(self) -> bool:
        """Whether the optimizer is applied in the backward pass."""
        return self.settings.in_backward

    @property
    def checkpointed_layers(self) -> int:
        """Layers that are run again in the backward pass."""
        return self.settings.recomputed_layers

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part."""
        return self.needs.parts()

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.needs.total

    @property
    def usable(self) -> int:
        """Bytes of the device that are planned with."""
        return int(self.memory * USABLE)

    @property
    def fits(self) -> bool:
        """Whether the device's memory suffices."""
        return self.total <= self.usable

    def as_object(self) -> dict[str, Any]:
        """The plan for JSON."""
        return {
            "method": self.method,
            "moments": self.moments,
            "gradients": self.gradients,
            "one_pass": self.settings.one_pass,
            "in_backward": self.in_backward,
            "checkpointed_layers": self.checkpointed_layers,
            "tokens_per_pass": self.tokens_per_pass,
            "fp8": self.fp8,
            "shards": self.settings.shards,
            "update_seconds": self.update_seconds,
            "parts": self.parts,
            "total": self.total,
            "memory": self.memory,
            "usable": self.usable,
            "fits": self.fits,
        }


@dataclass(frozen=True)
class Choice:
    """What is chosen among: a model, the work, the memory."""

    config: ModelConfig
    work: Work
    memory: int
    asked: Asked = field(default_factory=Asked)
    gpu: Gpu | None = None
    gpus: int = 1
    shards: int = 1
    device: Device = "cuda"

    def plans(self) -> Iterator[TuningPlan]:
        """Every plan that is worth a thought, with passes as long as fit."""
        for moments in [self.asked.moments] if self.asked.moments else WORTH:
            for layers in self._recomputed():
                settings = Settings(
                    moments=moments,
                    in_backward=self.asked.in_backward,
                    recomputed_layers=layers,
                    shards=self.shards,
                    offload=self.asked.offload,
                    rank=self.asked.rank,
                    adapters_beside=self.asked.adapters_beside,
                )
                yield from self._with_gradients(settings)

    def _recomputed(self) -> range | list[int]:
        if self.asked.recomputed_layers is not None:
            return [min(self.asked.recomputed_layers, self.config.layers)]
        return range(self.config.layers + 1)

    def _with_gradients(self, settings: Settings) -> Iterator[TuningPlan]:
        """In one pass gradients in 16 bits lose nothing; of several, fp32 moments go with fp32 sums."""
        halves: Gradients = "fp16" if self.asked.method == "fp16" else "bf16"
        whole = replace(settings, gradients=self.asked.gradients or halves, one_pass=True)
        one = self._plan(whole, self._longest)
        if settings.in_backward:
            yield one
            return
        if self._may_be(self._longest) and one.fits:
            yield one
        usual: Gradients = "fp32" if settings.moments == "fp32" else halves
        several = replace(settings, gradients=self.asked.gradients or usual)
        yield self._plan(several, self._most_tokens(several))

    @property
    def _longest(self) -> int:
        """Tokens of the longest update on one GPU, which may have a row more than its share."""
        longest = self.work.longest_update
        return min(-(-longest // self.gpus) + self.work.row_length, longest) if self.gpus > 1 else longest

    def _may_be(self, tokens: int) -> bool:
        return self.asked.tokens_per_pass is None or self.asked.tokens_per_pass >= tokens

    def _most_tokens(self, settings: Settings) -> int:
        """As many tokens a pass as fit, and no fewer than a row."""
        if self.asked.tokens_per_pass is not None:
            return min(self.asked.tokens_per_pass, self._longest)
        least = min(self.work.row_length, self._longest)
        low, high = 0, (self._longest - least) // STEP
        while low < high:
            middle = (low + high + 1) // 2
            fits = self._plan(settings, least + middle * STEP).fits
            low, high = (middle, high) if fits else (low, middle - 1)
        return least + low * STEP

    def _plan(self, settings: Settings, tokens: int) -> TuningPlan:
        asked = self.asked
        gpu = self.gpu or GPUS["h100"]
        seconds = update_seconds(
            self.config, asked.method, settings, self.work, tokens, gpu, gpus=self.gpus, fp8=asked.fp8
        )
        needs = self._needs(settings, tokens)
        return TuningPlan(asked.method, settings, tokens, needs, self.memory, seconds, asked.fp8)

    def _needs(self, settings: Settings, tokens: int) -> Tuning:
        answers = round(tokens * self.work.answer_share)
        return tuning(self.config, self.asked.method, tokens, self.device, settings, answers)

    def with_passes(self, plan: TuningPlan, longest: int) -> TuningPlan:
        """The same plan where its longest pass is known to have fewer tokens than it may have."""
        return replace(plan, needs=self._needs(plan.settings, longest))

    def best(self) -> TuningPlan:
        """The most exact of the plans that fit and are fast; the leanest where none fits."""
        plans = list(self.plans())
        fitting = [plan for plan in plans if plan.fits]
        if not fitting:
            return self._known_speed(min(plans, key=lambda plan: plan.total))
        fastest = min(_seconds(plan) for plan in fitting)
        for moments, worth in WORTH.items():
            good = [p for p in fitting if p.moments == moments and _seconds(p) <= worth * fastest]
            if good:
                return self._known_speed(min(good, key=_seconds))
        return self._known_speed(min(fitting, key=_seconds))

    def _known_speed(self, plan: TuningPlan) -> TuningPlan:
        return plan if self.gpu is not None else replace(plan, update_seconds=None)


def _seconds(plan: TuningPlan) -> float:
    assert plan.update_seconds is not None
    return plan.update_seconds


def choose_tuning(
    config: ModelConfig,
    *,
    memory_bytes: int,
    work: Work,
    asked: Asked | None = None,
    gpus: int = 1,
    shards: int | None = None,
    gpu: Gpu | None = None,
    device: Device = "cuda",
    longest_pass: Callable[[int], int] | None = None,
) -> TuningPlan:
    """The settings to tune with in `memory_bytes` on each of `gpus` devices, keeping to what is asked.

    Over `shards` of them weights, gradients and moments are spread (all, where it is not said). `gpu` says how fast
    they are; without it settings are weighed as on an H100, and no time is given.

    Updates are exact where that fits and costs little: fp32 moments, and gradients that are added up in fp32 or come
    from one pass. Else moments are in bf16, then in 8 bits, with gradients in 16 bits. Passes are as long as fit, and
    where shorter ones cost more than that, or nothing fits without, as few layers as help are recomputed. The plan
    says whether it fits; where nothing does it is the leanest. Settings of in_backward are only chosen when asked for.
    `longest_pass` knows how long the longest pass of the run at hand really is where passes may have so many tokens:
    rows are seldom such that they fill one to the last token.
    """
    choice = Choice(config, work, memory_bytes, asked or Asked(), gpu, gpus, shards or gpus, device)
    best = choice.best()
    return best if longest_pass is None else choice.with_passes(best, longest_pass(best.tokens_per_pass))
