"""Rows of ids laid out so that what they begin with is read once, and the attention over such a layout."""

from collections.abc import Sequence
from dataclasses import dataclass

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
class Chain:
    """Tokens of one row that stand one behind the other in a layout, and all that they may look at."""

    start: int
    """Where its tokens begin in the layout."""
    path: Sequence[int]
    """The places of its row's tokens from the first on; the chain's own are the last ones."""

    @property
    def count(self) -> int:
        """How many tokens are the chain's own."""
        return self.path[-1] + 1 - self.start


class Tree:
    """Rows laid out as a trie: what several begin with is there once, and each token stands before all that follow it.

    The layout is the trie's preorder, so a token sees those before it in whose subtree it lies.
    """

    def __init__(self, rows: Sequence[ScoreRow], config: ModelConfig) -> None:
        """Lay out one or more rows, sharing all that the model allows to be shared."""
        self.rows = rows
        self.ids: list[int] = []
        self.positions: list[int] = []
        """Each token's position in its row."""
        self.ends: list[int] = []
        """Where the subtree of each token ends in the layout."""
        self.roots: list[int] = []
        """Where rows begin that share nothing with those before."""
        self.chains: list[Chain] = []
        """What each row added to the layout, in the layout's order."""
        self.branched = False
        """Whether rows part behind a common beginning."""
        self._predicting: list[Sequence[int]] = [()] * len(rows)
        self._grow([list(row.ids[:-1]) for row in rows], may_share=_may_share(rows, config))

    @property
    def size(self) -> int:
        """How many tokens are read."""
        return len(self.ids)

    @property
    def runs(self) -> list[int]:
        """How many tokens each root leads to."""
        return [self.ends[root] - root for root in self.roots]

    @property
    def predicting(self) -> list[int]:
        """For every scored id, row by row, the place in the layout from which it is predicted."""
        return [place for places in self._predicting for place in places]

    def reach(self) -> list[int]:
        """How long each token's row is; where several share it, the longest that shares its root."""
        longest = (max(self.positions[root : self.ends[root]]) + 1 for root in self.roots)
        return [length for length, run in zip(longest, self.runs, strict=True) for _ in range(run)]

    def _grow(self, reads: Sequence[list[int]], *, may_share: bool) -> None:
        path: list[int] = []
        before: list[int] = []
        for number in sorted(range(len(reads)), key=reads.__getitem__):
            read, row = reads[number], self.rows[number]
            shared = common(before, read) if may_share else 0
            self.branched |= 0 < shared < len(before)
            self._close(path, shared)
            start = len(self.ids)
            if shared == 0:
                self.roots.append(start)
            path += range(start, start + len(read) - shared)
            if shared < len(read):
                self.chains.append(Chain(start, tuple(path)))
            self.ids += read[shared:]
            self.positions += range(shared, len(read))
            self.ends += [0] * (len(read) - shared)
            self._predicting[number] = path[row.start - 1 : row.read]
            before = read
        self._close(path, 0)

    def _close(self, path: list[int], kept: int) -> None:
        """End the subtrees of all that stands on `path` behind its first `kept` tokens."""
        for place in path[kept:]:
            self.ends[place] = len(self.ids)
        del path[kept:]


def common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two runs both begin with."""
    shorter = min(len(first), len(second))
    if first[:shorter] == second[:shorter]:
        return shorter
    return next(place for place in range(shorter) if first[place] != second[place])


def _may_share(rows: Sequence[ScoreRow], config: ModelConfig) -> bool:
    """Under dynamic scaling of positions a beginning is not the same to rows of unlike lengths past the original."""
    scaling = config.rotary_scaling
    if scaling is None or scaling.kind != "dynamic":
        return True
    return max(row.read for row in rows) <= scaling.original


class ChainAttention:
    """Attention over trees one behind the other, chain by chain: for a CPU, where a call is cheap.

    It does no more than is needed, which a mask over whole trees does several times over. Scores are taken in fp32 by
    torch's kernels.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device, dtype: torch.dtype, window: int | None) -> None:
        """`window` is how far back a token sees, in positions of its row."""
        self._reach = [tree.reach() for tree in trees]
        longest = max(len(chain.path) for tree in trees for chain in tree.chains)
        mask_TT = _band(longest, dtype, device, window)
        self._chains: list[tuple[slice, Tensor | None, Tensor | None]] = []
        before = 0
        for tree in trees:
            for chain in tree.chains:
                own = slice(before + chain.start, before + chain.start + chain.count)
                length = len(chain.path)
                is_root = length == chain.count
                path_T = None if is_root else torch.tensor(chain.path) + before
                mask_ST = None if is_root and window is None else mask_TT[length - chain.count : length, :length]
                self._chains.append((own, path_T, mask_ST))
            before += tree.size

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What each token gathers, [N, H, K]."""
        grouped = q_NHK.shape[1] != k_NGK.shape[1]
        out_NHK = torch.empty(q_NHK.shape, dtype=q_NHK.dtype, device=q_NHK.device)
        for own, path_T, mask_ST in self._chains:
            k_TGK, v_TGK = (x[own] if path_T is None else x.index_select(0, path_T) for x in (k_NGK, v_NGK))
            q, k, v = (x.transpose(0, 1)[None] for x in (q_NHK[own], k_TGK, v_TGK))
            out = F.scaled_dot_product_attention(q, k, v, mask_ST, is_causal=mask_ST is None, enable_gqa=grouped)
            out_NHK[own] = out[0].transpose(0, 1)
        return out_NHK

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's row is, [N]."""
        return torch.tensor([length for tree in self._reach for length in tree], device=positions_N.device)


def _band(longest: int, dtype: torch.dtype, device: torch.device, window: int | None) -> Tensor:
    """What is added to the scores of a row's tokens, [T, T]; a chain's are the last rows of its row's corner."""
    places = torch.arange(longest, device=device)
    back_TT = places[:, None] - places
    hidden_TT = (back_TT < 0) if window is None else (back_TT < 0) | (back_TT >= window)
    return torch.zeros(longest, longest, dtype=dtype, device=device).masked_fill_(hidden_TT, -torch.inf)


class TreeAttention:
    """Attention over trees one behind the other in one call: each token sees what its row has before it, and itself.

    For a GPU, where calls cost more than what they do. The trees are padded to the longest, so they should be of like
    sizes. Scores are taken in fp32 by torch's kernels.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device, dtype: torch.dtype, window: int | None) -> None:
        """`window` is how far back a token sees, in positions of its row."""
        sizes = torch.tensor([tree.size for tree in trees])
        width = -(-int(sizes.max()) // ALIGNED) * ALIGNED
        # Places instead of a mask: picking by a mask makes a GPU wait in every layer.
        self._kept_N = (torch.arange(width) < sizes[:, None]).flatten().nonzero()[:, 0].to(device)
        starts_B = torch.cumsum(sizes, 0) - sizes
        last = int(sizes.sum()) - 1
        self._places_M = (starts_B[:, None] + torch.arange(width)).clamp(max=last).flatten().to(device)
        self._shape = (len(trees), width)
        self._reach = [tree.reach() for tree in trees]
        ends_BT = _padded([tree.ends for tree in trees], width, fill=width).to(device)
        positions_BT = _padded([tree.positions for tree in trees], width, fill=0).to(device)
        self._mask_B1TT = _mask(ends_BT, positions_BT, dtype, window)

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What each token gathers, [N, H, K]."""
        # A GPU has no fused kernel that takes a mask and fewer keys than queries: torch would write all scores out.
        group = q_NHK.shape[1] // k_NGK.shape[1]
        k_NHK, v_NHK = (x.repeat_interleave(group, 1) if group > 1 else x for x in (k_NGK, v_NGK))
        q_BHTK, k_BHTK, v_BHTK = (self._padded(x).transpose(1, 2) for x in (q_NHK, k_NHK, v_NHK))
        out_BHTK = F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, attn_mask=self._mask_B1TT)
        return out_BHTK.transpose(1, 2).flatten(0, 1).index_select(0, self._kept_N)

    def _padded(self, x_NHK: Tensor) -> Tensor:
        return x_NHK.index_select(0, self._places_M).view(*self._shape, *x_NHK.shape[1:])

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's row is, [N]."""
        return torch.tensor([length for tree in self._reach for length in tree], device=positions_N.device)


def _padded(rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])


def _mask(ends_BT: Tensor, positions_BT: Tensor, dtype: torch.dtype, window: int | None) -> Tensor:
    """What is added to the scores, [B, 1, T, T]: nothing where a token may look, minus infinity elsewhere.

    Padding sees padding, so that no row is without anything to look at.
    """
    places_T = torch.arange(ends_BT.shape[1], device=ends_BT.device)
    visible_BTT = (places_T[:, None] >= places_T) & (places_T[:, None] < ends_BT[:, None, :])
    if window is not None:
        visible_BTT &= positions_BT[:, :, None] - positions_BT[:, None, :] < window
    mask_BTT = torch.zeros(visible_BTT.shape, dtype=dtype, device=ends_BT.device)
    return mask_BTT.masked_fill_(~visible_BTT, -torch.inf)[:, None]
