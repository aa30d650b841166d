"""The choice of the next token for every sequence of a batch, each by its own settings and its own random stream.

Drawing is by the exponential race: of the candidates, the one with the least `exponential / probability` wins, which
picks each with its probability. Noise belongs to a token's id, not to its rank, so low-order bits of the logits, which
move with the batch, change a draw only when two candidates are level to those bits.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from roslin.engine.cpu import sampling as kernel
from roslin.engine.cpu.sampling import CppDraw, has_kernel
from roslin.engine.generation import Generation
from roslin.engine.noise import exponentials, step_key
from roslin.engine.request import Sampling

SAMPLERS = 8
"""That are kept, for one and the same sequences with more or fewer guesses."""
_FEWEST_CANDIDATES = 64
COLDEST, HOTTEST = 1e-6, 1e30
"""Temperatures beyond these are taken as these: logits divided by less would overflow fp32, and 1e39 is none of its
numbers."""


class Sampler:
    """Chooses tokens for a fixed list of samplings, a row of logits each; made anew when the batch's members change."""

    def __init__(self, samplings: Sequence[Sampling], device: torch.device) -> None:
        """Sort the rows by what they need: the best token, a draw from a nucleus, or one from the whole vocabulary."""
        self._rows = len(samplings)
        self._kernel: CppDraw | None = None
        self._limited: _Nucleus | None = None
        self._whole: _Whole | None = None
        if has_kernel(device):
            temperatures = [0.0 if s.greedy else temperature_of(s) for s in samplings]
            self._kernel = CppDraw(temperatures, [s.top_p for s in samplings], [s.top_k for s in samplings])
            return
        limited = [row for row, s in enumerate(samplings) if not s.greedy and (s.top_p < 1 or s.top_k > 0)]
        whole = [row for row, s in enumerate(samplings) if not s.greedy and s.top_p == 1 and s.top_k == 0]
        self._limited = _Nucleus(samplings, limited, device) if limited else None
        self._whole = _Whole(samplings, whole, device) if whole else None

    def choose(self, logits_BV: Tensor, streams: Sequence[int], steps: Sequence[int]) -> Tensor:
        """Ids [B] drawn from float32 logits; `streams` and `steps` say where each row stands in its random stream."""
        keys = [step_key(stream, step) for stream, step in zip(streams, steps, strict=True)]
        if self._kernel is not None:
            return self._kernel(logits_BV, keys)
        if self._limited is None and self._whole is None:
            return logits_BV.argmax(-1)
        for group in (self._limited, self._whole):
            if group is not None and len(group.rows) == self._rows:
                return group.choose(logits_BV, keys)
        ids_B = logits_BV.argmax(-1)
        for group in (self._limited, self._whole):
            if group is not None:
                ids_B[group.rows] = group.choose(logits_BV[group.rows], [keys[row] for row in group.rows])
        return ids_B


class Samplers:
    """The samplers of sequences that draw again and again, by the numbers of those that draw, for each of the rows."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], Sampler] = {}

    def choose(self, drawing: Sequence[Generation], steps: Sequence[int], logits_BV: Tensor) -> Tensor:
        """Ids [B] drawn from float32 logits, each at its step of the random stream of the one that draws it."""
        numbers = tuple(generation.number for generation in drawing)
        if numbers not in self._kept:
            if len(self._kept) == SAMPLERS:
                self._kept.clear()
            self._kept[numbers] = Sampler([one.request.sampling for one in drawing], logits_BV.device)
        return self._kept[numbers].choose(logits_BV, [generation.stream for generation in drawing], steps)

    def clear(self) -> None:
        """Keep none."""
        self._kept.clear()


def log_sums(logits_BV: Tensor) -> Tensor:
    """The logarithm of each row's sum of exponentials, [B], of float32 logits.

    On a CPU by our own kernel: torch's threads would wait awake for more work, on cores that the next pass needs.
    """
    return kernel.log_sums(logits_BV) if has_kernel(logits_BV.device) else logits_BV.logsumexp(-1)


def temperature_of(sampling: Sampling) -> float:
    """What logits are divided by in fp32 where they are drawn from."""
    return min(max(sampling.temperature, COLDEST), HOTTEST)


class _Whole:
    """Rows that draw from the whole vocabulary."""

    def __init__(self, samplings: Sequence[Sampling], rows: list[int], device: torch.device) -> None:
        self.rows = rows
        self._temperature_R1 = _temperatures([samplings[row] for row in rows], device)

    def choose(self, logits_RV: Tensor, keys: Sequence[int]) -> Tensor:
        ids_RV = torch.arange(logits_RV.shape[-1], device=logits_RV.device)[None]
        return _race(logits_RV / self._temperature_R1, ids_RV, keys).argmax(-1)


class _Nucleus:
    """Rows that draw from their most probable tokens only. The vocabulary is not sorted: a few candidates do."""

    def __init__(self, samplings: Sequence[Sampling], rows: list[int], device: torch.device) -> None:
        self.rows = rows
        own = [samplings[row] for row in rows]
        self._temperature_R1 = _temperatures(own, device)
        # Cumulated probabilities may pass 1 by rounding; where top_p is off, that must not cut the tail.
        self._top_p_R1 = _column([s.top_p if s.top_p < 1 else 2.0 for s in own], device)
        self._top_k_R1 = _column([s.top_k or float("inf") for s in own], device)
        self._limits_count = any(s.top_k for s in own)
        self._reaches_all = all(s.top_k for s in own)
        self._width = self._fewest = max(_FEWEST_CANDIDATES, *(s.top_k for s in own))

    def choose(self, logits_RV: Tensor, keys: Sequence[int]) -> Tensor:
        ids_RK, scores_RK = self._candidates(logits_RV)
        best_R1 = _race(scores_RK, ids_RK, keys).argmax(-1, keepdim=True)
        return ids_RK.gather(-1, best_R1)[:, 0]

    def _candidates(self, logits_RV: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and log-probabilities of enough candidates, most probable first; those outside the nucleus are -inf."""
        total_R1 = torch.logsumexp(logits_RV / self._temperature_R1, -1, keepdim=True)
        while True:
            width = min(self._width, logits_RV.shape[-1])
            best_RK, ids_RK = logits_RV.topk(width)
            scores_RK = self._within_top_k(best_RK / self._temperature_R1 - total_R1)
            chances_RK = scores_RK.exp()
            reached_RK = chances_RK.cumsum(-1)
            inside_RK = (reached_RK - chances_RK < self._top_p_R1) & (chances_RK > 0)
            if self._reaches_all or width == logits_RV.shape[-1] or not bool(inside_RK[:, -1].any()):
                # The nucleus is a beginning of each row: the race needs no column beyond the longest one, and the next
                # step will likely need about as many candidates.
                size = max(1, int(inside_RK.sum(-1).max()))
                self._width = max(self._fewest, size + size // 2)
                return ids_RK[:, :size], scores_RK.masked_fill(~inside_RK, float("-inf"))[:, :size]
            self._width = width * 4

    def _within_top_k(self, scores_RK: Tensor) -> Tensor:
        """Log-probabilities among each row's `top_k` best; beyond them -inf."""
        if not self._limits_count:
            return scores_RK
        ranks_K = torch.arange(scores_RK.shape[-1], device=scores_RK.device)
        kept_RK = scores_RK.masked_fill(ranks_K >= self._top_k_R1, float("-inf"))
        total_R1 = torch.logsumexp(kept_RK, -1, keepdim=True)
        return torch.where(self._top_k_R1.isfinite(), kept_RK - total_R1, kept_RK)


def _race(scores_RK: Tensor, ids_RK: Tensor, keys: Sequence[int]) -> Tensor:
    keys_R1 = torch.tensor(keys, dtype=torch.int64, device=scores_RK.device)[:, None]
    return scores_RK - exponentials(keys_R1, ids_RK).log()


def _temperatures(samplings: Sequence[Sampling], device: torch.device) -> Tensor:
    return _column([temperature_of(s) for s in samplings], device)


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device)[:, None]
