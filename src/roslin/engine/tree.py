"""Rows of ids that share a prefix, laid out so that the prefix is read once, and the attention over such a layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.model import ModelConfig

ALIGNED = 8
"""GPUs read masks whose rows are a multiple of this long."""


@dataclass(frozen=True)
class ScoreRow:
    """A run of ids of which those from `start` on are scored, each given all before it."""

    ids: Sequence[int]
    start: int

    @property
    def read(self) -> int:
        """How many ids are read: the last one is only predicted."""
        return len(self.ids) - 1

    @property
    def scored(self) -> int:
        """How many ids are scored."""
        return len(self.ids) - self.start

    def faults(self, vocabulary: int, positions: int) -> list[str]:
        """All that is wrong with this row, a line each."""
        found = []
        if not 1 <= self.start < len(self.ids):
            found.append(
                f"scoring starts at token {self.start} of {len(self.ids)}; one token must stand before and one after"
            )
        if self.read > positions:
            found.append(f"{len(self.ids)} tokens, and the model has {positions} positions; shorten the text")
        if self.ids and not 0 <= min(self.ids) <= max(self.ids) < vocabulary:
            found.append(f"ids outside 0 … {vocabulary - 1}; they were made with another tokenizer")
        return found


@dataclass(frozen=True)
class Tree:
    """Rows whose first `prefix` ids are the same: those once, then what each row reads after them, row by row."""

    rows: Sequence[ScoreRow]
    prefix: int

    @classmethod
    def of(cls, rows: Sequence[ScoreRow], config: ModelConfig) -> "Tree":
        """The tree of one or more rows, sharing all that they can."""
        return cls(rows, _common(rows) if _may_share(rows, config) else 0)

    @cached_property
    def rests(self) -> list[int]:
        """How many ids each row reads after the prefix."""
        return [row.read - self.prefix for row in self.rows]

    @cached_property
    def size(self) -> int:
        """How many tokens are read."""
        return self.prefix + sum(self.rests)

    @property
    def runs(self) -> list[int] | None:
        """Lengths of the runs of tokens that see only themselves; None where rows branch off a prefix."""
        if self.prefix == 0:
            return self.rests
        return [self.size] if sum(rest > 0 for rest in self.rests) <= 1 else None

    def ids(self) -> list[int]:
        """The ids that are read, in the layout's order."""
        return [*self.rows[0].ids[: self.prefix], *(i for row in self.rows for i in row.ids[self.prefix : -1])]

    def positions(self) -> list[int]:
        """Each token's position in its row."""
        rests = (range(self.prefix, self.prefix + rest) for rest in self.rests)
        return [*range(self.prefix), *(position for rest in rests for position in rest)]

    def predicting(self) -> list[int]:
        """For every scored id, row by row, the place in the layout from which it is predicted."""
        offsets = accumulate(self.rests, initial=0)
        places: list[int] = []
        for row, offset in zip(self.rows, offsets, strict=False):
            fork = max(row.start - 1, self.prefix)
            places += range(row.start - 1, min(self.prefix, row.read))
            places += range(offset + fork, offset + row.read)
        return places

    def branches(self) -> list[int]:
        """The number of the branch of every token: 0 in the prefix, then 1, 2 … row by row."""
        rests = ([number] * rest for number, rest in enumerate(self.rests, 1))
        return [0] * self.prefix + [number for rest in rests for number in rest]

    def reach(self) -> list[int]:
        """How long each token's row is; the prefix's are those of its longest row."""
        rests = ([self.prefix + rest] * rest for rest in self.rests)
        return [self.prefix + max(self.rests)] * self.prefix + [length for rest in rests for length in rest]


def _common(rows: Sequence[ScoreRow]) -> int:
    """How many ids all rows begin with, of those that each reads."""
    reads = [list(row.ids[:-1]) for row in rows]
    first, last = min(reads), max(reads)  # in between, all begin with what these two begin with
    shorter = min(len(first), len(last))
    return next((place for place in range(shorter) if first[place] != last[place]), shorter)


def _may_share(rows: Sequence[ScoreRow], config: ModelConfig) -> bool:
    """Under dynamic scaling of positions a prefix is not the same to rows of unlike lengths past the original ones."""
    scaling = config.rotary_scaling
    if scaling is None or scaling.kind != "dynamic":
        return True
    return max(row.read for row in rows) <= scaling.original


class TreeAttention:
    """Attention over trees one behind the other: each token sees the prefix and its own branch, up to itself.

    The trees are padded to the longest, so they should be of like sizes. Scores are taken in fp32 by torch's kernels.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device, dtype: torch.dtype, window: int | None) -> None:
        """`window` is how far back a token sees, in positions of its row."""
        sizes = torch.tensor([tree.size for tree in trees])
        width = -(-int(sizes.max()) // ALIGNED) * ALIGNED
        self._kept_BT = (torch.arange(width) < sizes[:, None]).to(device)
        starts_B = torch.cumsum(sizes, 0) - sizes
        last = int(sizes.sum()) - 1
        self._places_BT = (starts_B[:, None] + torch.arange(width)).clamp(max=last).to(device)
        self._reach = [tree.reach() for tree in trees]
        branches_BT = _padded([tree.branches() for tree in trees], width, fill=-1)
        positions_BT = _padded([tree.positions() for tree in trees], width, fill=0)
        self._mask_B1TT = _mask(branches_BT.to(device), positions_BT.to(device), dtype, window)

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What each token gathers, [N, H, K]."""
        q_BHTK, k_BGTK, v_BGTK = (x[self._places_BT].transpose(1, 2) for x in (q_NHK, k_NGK, v_NGK))
        grouped = q_NHK.shape[1] != k_NGK.shape[1]
        out_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, attn_mask=self._mask_B1TT, enable_gqa=grouped)
        return out_BHTK.transpose(1, 2)[self._kept_BT]

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's row is, [N]."""
        return torch.tensor([length for tree in self._reach for length in tree], device=positions_N.device)


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _mask(branches_BT: Tensor, positions_BT: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
    """What is added to the scores, [B, 1, T, T]: nothing where a token may look, minus infinity elsewhere."""
    seen, seeing = branches_BT[:, None, :], branches_BT[:, :, None]
    width = branches_BT.shape[1]
    earlier_TT = torch.ones(width, width, dtype=torch.bool, device=branches_BT.device).tril()
    visible_BTT = earlier_TT & ((seen == 0) | (seen == seeing))
    if window is not None:
        visible_BTT &= (positions_BT[:, :, None] - positions_BT[:, None, :] < window) | (seeing < 0)
    mask_BTT = torch.zeros(visible_BTT.shape, dtype=dtype, device=branches_BT.device)
    return mask_BTT.masked_fill_(~visible_BTT, -torch.inf)[:, None]
