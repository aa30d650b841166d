"""AdamW on exact fp32 weights, which a model in 16 bits has in two halves; the moments in 32, 16 or 8 bits."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor, nn

from roslin.model.grad_mode import no_grad
from roslin.tune.adamw import plain
from roslin.tune.adamw.moments import Kind, Moments
from roslin.tune.adamw.noise import key_of
from roslin.tune.adamw.plain import Held, Step
from roslin.tune.adamw.shards import first_row, here, together
from roslin.tune.adamw.split import HALVES, join

Tensors = Mapping[str, Tensor]
Gradients = Literal["fp32", "bf16", "fp16"]


class MasterAdamW:
    """Owns what is behind every parameter that learns: the rest of its exact weight, its gradient sum, its moments.

    A parameter in fp32 is its own master. One in bf16 or fp16 is the high half of its master and the low half is kept
    here, so an update is exact in fp32 (in fp16 down to weights of 1.5e-5, see `split`) and no second copy of the
    weights exists. Bytes a parameter of such a model: weight 2, low half 2, gradient 4 (`gradients="fp32"`: passes add
    up in fp32, so splitting an update into more passes loses nothing to sums in 16 bits) or 2 (those of the passes) or
    none (`in_backward`), moments 8, 4 or 2.06.

    With `in_backward` every tensor makes its step as soon as its gradient is there, and the gradient is dropped: call
    `begin` before the one backward pass of an update, and `update` after it. A gradient that is not finite then leaves
    its own tensor alone (weight, low half and moments), but other tensors have made their step by the time that
    `update` returns the norm, which is not finite either: the state is then no longer that of any update, and what
    goes on must go on from a checkpoint. Nothing is clipped, since the norm is known too late.

    Parameters may be DTensors (FSDP2): each process works on its own rows, which are then what a gradient that is not
    finite leaves alone, and the norm is of all processes' gradients.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float,
        moments: Kind = "fp32",
        gradients: Gradients = "fp32",
        in_backward: bool = False,
        low: Tensors | None = None,
        fast_rows: Mapping[str, Sequence[int]] | None = None,
        fast_factor: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Take over what learns of `model`.

        `low` gives int16 low halves of parameters in 16 bits, where the model was rounded from something finer, and is
        taken over too. `fast_rows` names rows of parameters whose learning rate is `fast_factor` times all others'.
        `seed` is for the rounding of moments in 16 and 8 bits: the same seed, the same bits.
        """
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.sums: dict[str, Tensor] = {}
        """fp32 sums of the passes' gradients, until `update` clears them."""
        self._betas, self._epsilon, self._weight_decay, self._seed = betas, epsilon, weight_decay, seed
        self._in_backward = in_backward
        self._steps = torch.tensor(0)
        self._rate = math.nan
        self._norms: dict[str, Tensor] = {}
        self._together = together(self.parameters.items())
        self._low = {name: _low_half(here(p), (low or {}).get(name)) for name, p in self._rounded()}
        self._moments = {name: Moments.zeros(moments, here(p)) for name, p in self.parameters.items()}
        self._rate_factors = {
            name: _rate_factors(self.parameters[name], rows, fast_factor) for name, rows in (fast_rows or {}).items()
        }
        for name, parameter in self.parameters.items():
            if in_backward:
                self._when_there_is_a_gradient(name, parameter, self._step_at_once)
            elif gradients == "fp32" and parameter.dtype != torch.float32:
                self._when_there_is_a_gradient(name, parameter, self._collect)

    def _rounded(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, p) for name, p in self.parameters.items() if p.dtype in HALVES]

    def _when_there_is_a_gradient(self, name: str, parameter: Tensor, work: Callable[[str, Tensor], None]) -> None:
        """Have a finished gradient worked on and freed while backward still runs."""

        @no_grad
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:
                work(name, here(parameter.grad))
                parameter.grad = None

        parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _collect(self, name: str, gradient: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += gradient
        else:
            self.sums[name] = gradient.float()

    def begin(self, learning_rate: float) -> None:
        """Before the backward pass of an update that is applied in it."""
        self._rate = learning_rate
        self._norms = {}
        self._steps += 1

    def _step_at_once(self, name: str, gradient: Tensor) -> None:
        if math.isnan(self._rate) or name in self._norms:
            raise RuntimeError(f"{name} has a gradient outside the one backward pass that begin() announces")
        if not gradient.numel():  # a shard without rows
            return
        norm = torch.linalg.vector_norm(gradient, dtype=torch.float32)
        self._norms[name] = norm
        self._step(name, gradient, _factor(norm, None), self._rate)

    @no_grad
    def update(self, learning_rate: float, clip_norm: float | None, loss_scale: float = 1.0) -> float:
        """Clip, step, clear; the gradients' norm before clipping. Nothing is changed when the norm is not finite.

        `loss_scale` is what the gradients were multiplied with: the norm is of those without it. Where the steps are
        made in the backward pass, what is left is to give the norm: the arguments are ignored.
        """
        if self._in_backward:
            self._rate = math.nan
            return float(self._norm(self._norms))
        gradients = self._gradients()
        norms = torch._foreach_norm(list(gradients.values()), 2, torch.float32) if gradients else []
        norm = self._norm(dict(zip(gradients, norms, strict=True))) / loss_scale
        factor = _factor(norm, clip_norm) / loss_scale
        self._steps += 1
        for name, gradient in gradients.items():
            self._step(name, gradient, factor, learning_rate)
        self.sums = {}
        for parameter in self.parameters.values():
            parameter.grad = None
        found = float(norm)  # the device is waited for here, with all steps already on their way
        if not math.isfinite(found):
            self._steps -= 1
        return found

    def _gradients(self) -> dict[str, Tensor]:
        """By name, what this process has: a shard without rows may have none."""
        found = {name: here(p.grad) for name, p in self.parameters.items() if p.grad is not None} | self.sums
        return {name: found[name] for name in self.parameters if name in found and found[name].numel()}

    def _norm(self, norms: Tensors) -> Tensor:
        device = next(iter(self.parameters.values())).device
        squares = [part.square_of_norm(norms, device) for part in self._together]
        return torch.stack(squares).sum().sqrt().float()

    def _step(self, name: str, gradient: Tensor, factor: Tensor, learning_rate: float) -> None:
        number = int(self._steps)
        told = Step(
            learning_rate, self._betas, self._epsilon, self._weight_decay, number, key_of(self._seed, name, number)
        )
        parameter = self.parameters[name]
        weight = here(parameter)
        first = first_row(parameter) * (weight.numel() // max(1, len(weight)))
        held = Held(weight, self._low.get(name), self._moments[name], self._rate_factors.get(name), first)
        if weight.is_cuda and _has_triton():
            from roslin.tune.adamw import kernel

            kernel.step(held, gradient, factor, told)
        else:
            plain.step(held, gradient, factor, told)

    def master(self, name: str) -> Tensor:
        """The exact fp32 weight: of this process's rows, where the parameter is cut up."""
        weight = here(self.parameters[name])
        return join(weight, self._low[name]) if name in self._low else weight

    def weights(self) -> dict[str, Tensor]:
        """What passes are computed with, by name: of this process's rows. Not copies."""
        return {name: here(p) for name, p in self.parameters.items()}

    def masters(self) -> dict[str, Tensor]:
        """The weights, and their low halves as `NAME/low` where they are in 16 bits: all that is exact. Not copies."""
        return self.weights() | {f"{name}/low": half for name, half in self._low.items()}

    def become_exact(self) -> None:
        """Put every fp32 master in the place of its parameter in 16 bits and its low half, which are as large as it is.

        For a model that is to be written in a finer dtype, when all updates are done; not for parameters that are cut
        up among processes.
        """
        for name in list(self._low):
            self.parameters[name].data = self.master(name)
            del self._low[name]

    def state(self) -> dict[str, Tensor]:
        """All but the weights, for a checkpoint: `NAME/low`, `NAME/exp_avg` and so on, and `step`. Not copies.

        Every tensor but `step`, a number, has the first dimension of this process's part of its parameter. A checkpoint
        may be read into these tensors and `weights` as they are.
        """
        found = {f"{name}/low": half for name, half in self._low.items()}
        for name, moments in self._moments.items():
            found |= {f"{name}/{part}": value for part, value in moments.parts().items()}
        return found | {"step": self._steps}

    def load_state(self, state: Tensors) -> None:
        """Set what `state` gave."""
        for key, tensor in self.state().items():
            tensor.copy_(state[key])


def _low_half(weight: Tensor, given: Tensor | None) -> Tensor:
    if given is None:
        return torch.zeros(weight.shape, dtype=torch.int16, device=weight.device)
    return given.to(weight.device)


def _rate_factors(parameter: Tensor, rows: Sequence[int], factor: float) -> Tensor:
    """fp32, one for each row that is here."""
    factors_R = torch.ones(parameter.shape[0])
    factors_R[list(rows)] = factor
    first, weight = first_row(parameter), here(parameter)
    return factors_R[first : first + len(weight)].to(weight.device)


def _factor(norm: Tensor, clip_norm: float | None) -> Tensor:
    """What gradients are multiplied with, as torch clips them; NaN, which leaves a tensor alone, for no finite norm."""
    clipped = torch.ones_like(norm) if clip_norm is None else (clip_norm / (norm + 1e-6)).clamp(max=1.0)
    return torch.where(torch.isfinite(norm), clipped, math.nan)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
