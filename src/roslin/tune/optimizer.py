"""AdamW on fp32 masters: passes may be computed in bf16, updates are exact in fp32."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]


class MasterAdamW:
    """Owns the fp32 master of every parameter that learns, its gradient sum, and AdamW's two moments.

    A model in fp32 is its own master. A model in bf16 is written anew from the masters after each update, and each
    pass's gradients are added up in fp32, so splitting an update into more passes loses nothing to bf16 sums. Such a
    model takes 18 bytes a parameter: weight 2, master 4, gradient sum 4, moments 8.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float],
        epsilon: float,
        weight_decay: float,
        masters: Tensors | None = None,
        fast_rows: Mapping[str, Sequence[int]] | None = None,
        fast_factor: float = 1.0,
    ) -> None:
        """Take over what learns of `model`; `masters` gives fp32 values where they are known, and is taken over too.

        `fast_rows` names rows of parameters whose learning rate is `fast_factor` times that of all others.
        """
        self.parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.masters = {name: self._master(name, p, masters) for name, p in self.parameters.items()}
        self._adamw = torch.optim.AdamW(
            self.masters.values(), lr=0.0, betas=betas, eps=epsilon, weight_decay=weight_decay, fused=True
        )
        self._fast_rows = {
            name: torch.tensor(rows, device=self.masters[name].device) for name, rows in (fast_rows or {}).items()
        }
        self._fast_factor = fast_factor
        self._collect_by_itself()
        self._publish()

    @staticmethod
    def _master(name: str, parameter: nn.Parameter, masters: Tensors | None) -> Tensor:
        if parameter.dtype == torch.float32:
            if masters is not None:
                parameter.data.copy_(masters[name])
            return parameter
        if masters is None:
            return parameter.detach().float()
        return masters[name].to(parameter.device, torch.float32)

    def _collect_by_itself(self) -> None:
        """Have every finished gradient moved into its master's fp32 sum and freed, while backward still runs."""
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                hook = partial(_collect, self.masters[name])
                parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, learning_rate: float, clip_norm: float | None) -> float:
        """Clip, step, clear; the gradients' norm before clipping. Nothing is changed when the norm is not finite."""
        gradients = [master.grad for master in self.masters.values() if master.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if torch.isfinite(norm):
            if clip_norm is not None:
                nn.utils.clip_grads_with_norm_(list(self.masters.values()), clip_norm, norm)
            for group in self._adamw.param_groups:
                group["lr"] = learning_rate
            with self._hastened():
                self._adamw.step()
            self._publish()
        self._adamw.zero_grad(set_to_none=True)
        return float(norm)

    @contextmanager
    def _hastened(self) -> Iterator[None]:
        """Lengthen what the step does to the fast rows: AdamW's step is proportional to the learning rate."""
        before = {name: self.masters[name][rows] for name, rows in self._fast_rows.items()}
        yield
        for name, rows in self._fast_rows.items():
            self.masters[name][rows] = before[name].lerp(self.masters[name][rows], self._fast_factor)

    @torch.no_grad()
    def _publish(self) -> None:
        for name, parameter in self.parameters.items():
            if self.masters[name] is not parameter:
                parameter.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """The moments and step counts, by parameter name, for a checkpoint."""
        found = {}
        for name, master in self.masters.items():
            for part, value in self._adamw.state.get(master, {}).items():
                found[f"{name}/{part}"] = value
        return found

    def load_state(self, state: Tensors) -> None:
        """Set what `state` gave."""
        for name, master in self.masters.items():
            parts = {key.rpartition("/")[2]: value for key, value in state.items() if key.rpartition("/")[0] == name}
            if parts:
                self._adamw.state[master] = {part: value.to(master.device, copy=True) for part, value in parts.items()}


@torch.no_grad()
def _collect(master: Tensor, parameter: Tensor) -> None:
    if parameter.grad is None:
        return
    if master.grad is None:
        master.grad = parameter.grad.float()
    else:
        master.grad += parameter.grad
    parameter.grad = None
