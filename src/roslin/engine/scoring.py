"""Log-probabilities of given tokens: many rows in one packed pass, and what rows share read once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from roslin.engine.cpu.chains import attention_by_chains
from roslin.engine.cpu.decoder import KernelDecoder
from roslin.engine.network import Network
from roslin.engine.tree import ScoreRow, Tree, TreeAttention, common
from roslin.errors import InputError, MachineError, out_of_memory
from roslin.model import Attend, ModelConfig, PackedAttention
from roslin.model.finite import find_fault, not_finite, watched_hidden
from roslin.model.grad_mode import no_grad

T = TypeVar("T", bound=Tree)

TOKENS_PER_PASS = 4096
LOGIT_ROWS = 512
"""Rows of the head computed at once: 512 rows of 50,688 logits in fp32 are 100 MB."""
BRANCHED: dict[str, Callable[[Sequence[Tree], torch.device, torch.dtype, int | None], Attend]] = {
    "cpu": attention_by_chains,
    "cuda": TreeAttention,
}
"""How rows that part behind a common beginning attend, by the type of the device."""
LONGEST_TREE = 8192
"""Tokens of a tree beyond which a group's rows are laid out in several: its mask takes 470 MB while it is made."""


@dataclass(frozen=True)
class RowScore:
    """What a row's scored ids are worth together."""

    log_likelihood: float
    """In nats, summed over the scored ids."""
    tokens: int
    greedy: bool
    """Whether each scored id was the model's first choice."""


@no_grad
def score(decoder: Network, rows: Sequence[ScoreRow]) -> list[list[float]]:
    """The log-probability of every scored id, row by row.

    Raises InputError naming every row that cannot be scored, and MachineError for numbers that are none.
    """
    _check(decoder, [[row] for row in rows])
    scored: list[list[float]] = []
    for trees in _passes([Tree([row], decoder.config) for row in rows], TOKENS_PER_PASS):
        logprobs_M, _ = _Pass(decoder, trees).read()
        counts = [row.scored for tree in trees for row in tree.rows]
        scored += [found.tolist() for found in torch.split(logprobs_M, counts)]
    return scored


def score_groups(
    decoder: Network, groups: Sequence[Sequence[ScoreRow]], tokens_per_pass: int = TOKENS_PER_PASS
) -> Iterator[tuple[int, list[RowScore]]]:
    """The scores of groups of rows, such as the choices of a question: what a group's rows begin with is read once.

    So is what neighbouring groups have in common, where that is much. Yields each group's number and its rows' scores,
    pass by pass, the longest first. A pass reads at most `tokens_per_pass` tokens (or one longer group); what shares
    it changes no score beyond rounding. Raises InputError naming every row that cannot be scored, before any work, and
    MachineError for numbers that are none.
    """
    _check(decoder, groups)
    parts = [part for number, rows in enumerate(groups) for part in _parts(number, rows)]
    together = _alike(parts, min(tokens_per_pass, LONGEST_TREE) // 2)
    bundles = sorted((_Bundle(alike, decoder.config) for alike in together), key=lambda bundle: -bundle.size)
    yield from _whole(_score_bundles(decoder, bundles, tokens_per_pass), groups)


@dataclass(frozen=True)
class _Part:
    """Rows of a group, from its row `first` on, that are read together: all of them, unless they are long."""

    group: int
    first: int
    rows: Sequence[ScoreRow]


class _Bundle(Tree):
    """Parts of groups that begin alike."""

    def __init__(self, parts: Sequence[_Part], config: ModelConfig) -> None:
        super().__init__([row for part in parts for row in part.rows], config)
        self.parts = parts


def _score_bundles(decoder: Network, bundles: Sequence[_Bundle], tokens: int) -> Iterator[tuple[_Part, list[RowScore]]]:
    running: tuple[list[_Bundle], _Pass] | None = None
    for some in _passes(bundles, tokens):
        # The next pass is handed to a GPU before the last one is waited for.
        waited, running = running, (some, _Pass(decoder, some))
        if waited:
            yield from _by_part(*waited)
    if running:
        yield from _by_part(*running)


def _by_part(bundles: Sequence[_Bundle], scored: "_Pass") -> Iterator[tuple[_Part, list[RowScore]]]:
    rows = scored.scores()
    for bundle in bundles:
        for part in bundle.parts:
            yield part, list(islice(rows, len(part.rows)))


def _whole(
    found: Iterable[tuple[_Part, list[RowScore]]], groups: Sequence[Sequence[ScoreRow]]
) -> Iterator[tuple[int, list[RowScore]]]:
    """Each group's number and its rows' scores, once all of its parts have come."""
    come: dict[int, dict[int, list[RowScore]]] = {}
    for part, scores in found:
        parts = come.setdefault(part.group, {})
        parts[part.first] = scores
        if sum(map(len, parts.values())) == len(groups[part.group]):
            yield part.group, [score for first in sorted(parts) for score in parts[first]]
            del come[part.group]


def _parts(number: int, rows: Sequence[ScoreRow]) -> Iterator[_Part]:
    """A group in parts that are at most LONGEST_TREE tokens long as trees, or one row."""
    first = size = 0
    for place, row in enumerate(rows):
        own = _beyond(rows[first], row) if place > first else row.read
        if place > first and size + own > LONGEST_TREE:
            yield _Part(number, first, rows[first:place])
            first, size, own = place, 0, row.read
        size += own
    yield _Part(number, first, rows[first:])


def _alike(parts: Sequence[_Part], most: int) -> Iterator[list[_Part]]:
    """Parts together where more than half of what they read is common, up to `most` tokens apart."""
    together: list[_Part] = []
    size = 0
    for part in sorted(parts, key=lambda part: list(part.rows[0].ids)):
        first, own = part.rows[0], _size(part.rows)
        shared = common(together[0].rows[0].ids, first.ids) if together else 0
        if together and (2 * shared <= first.read or size + own - 2 * shared > most):
            yield together
            together, size, shared = [], 0, 0
        together.append(part)
        size += own - shared
    if together:
        yield together


def _size(rows: Sequence[ScoreRow]) -> int:
    """How many tokens rows take as a tree, or more: only what they share with the first is counted once."""
    first, *others = rows
    return first.read + sum(_beyond(first, row) for row in others)


def _beyond(first: ScoreRow, row: ScoreRow) -> int:
    """How many tokens a row reads behind what it shares with another."""
    return row.read - min(common(first.ids, row.ids), row.read)


def _check(decoder: Network, groups: Sequence[Sequence[ScoreRow]]) -> None:
    if not all(groups):
        raise InputError("A group without rows has nothing to score.")
    vocabulary, positions = decoder.config.vocab_rows, decoder.config.positions
    rows = (row for group in groups for row in group)
    faults = [(number, row.faults(vocabulary, positions)) for number, row in enumerate(rows, 1)]
    if any(found for _, found in faults):
        raise InputError("\n".join(f"row {number}: {'; '.join(found)}." for number, found in faults if found))


def _passes(trees: Sequence[T], tokens: int) -> Iterator[list[T]]:
    """Consecutive trees whose tokens, counted as if all were as long as the longest, are at most `tokens`."""
    part: list[T] = []
    longest = 0
    for tree in trees:
        longest = max(longest, tree.size)
        if part and longest * (len(part) + 1) > tokens:
            yield part
            part, longest = [], tree.size
        part.append(tree)
    if part:
        yield part


class _Pass:
    """One pass over some trees, begun when it is made: on a GPU it runs on while its maker goes on."""

    @no_grad
    def __init__(self, decoder: Network, trees: Sequence[Tree]) -> None:
        self._decoder, self._trees = decoder, trees
        device = decoder.device
        with _telling_of_memory(device):
            ids_N = torch.tensor([token for tree in trees for token in tree.ids], device=device)
            positions_N = torch.tensor([position for tree in trees for position in tree.positions], device=device)
            self._stream = ids_N, positions_N, _attention(decoder, trees)
            # Every place is taken to the vocabulary once, however many targets are predicted from it.
            places_U, row_M = torch.unique(_predicting(trees), return_inverse=True)
            hidden_UD = watched_hidden(decoder, *self._stream, places_U.to(device))
            self._found_2M = _logprobs(decoder, hidden_UD, row_M, _targets(trees))

    @no_grad
    def read(self) -> tuple[Tensor, Tensor]:
        """The log-probability of every scored id, row by row, [M], and whether it was the model's first choice."""
        logprobs_M, first_M = self._found_2M.cpu()
        if not logprobs_M.isfinite().all():
            hidden_ND = self._decoder.hidden(*self._stream)
            raise not_finite(find_fault(self._decoder, *self._stream, hidden_ND), self._decoder.dtype)
        return logprobs_M, first_M.bool()

    def scores(self) -> Iterator[RowScore]:
        """Every row's scores, tree by tree."""
        logprobs_M, first_M = self.read()
        counts = [row.scored for tree in self._trees for row in tree.rows]
        starts = np.cumsum([0, *counts[:-1]])
        sums = np.add.reduceat(logprobs_M.double().numpy(), starts).tolist()
        greedy = np.logical_and.reduceat(first_M.numpy(), starts).tolist()
        return map(RowScore, sums, counts, greedy)


@contextmanager
def _telling_of_memory(device: torch.device) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if out_of_memory(error):
            raise MachineError(f"Out of memory on {device} while texts were scored: use a smaller dtype.") from error
        raise


def _attention(decoder: Network, trees: Sequence[Tree]) -> Attend:
    if decoder.device.type == "cpu" or any(tree.branched for tree in trees):
        kind = BRANCHED[decoder.device.type]
        return kind(trees, decoder.device, decoder.dtype, decoder.config.window)
    return PackedAttention([length for tree in trees for length in tree.runs], decoder.config.window)


def _targets(trees: Sequence[Tree]) -> Tensor:
    return torch.tensor([token for tree in trees for row in tree.rows for token in row.ids[row.start :]])


def _predicting(trees: Sequence[Tree]) -> Tensor:
    """The place in the pass from which each scored id is predicted, [M]."""
    starts = accumulate((tree.size for tree in trees), initial=0)
    placed = zip(trees, starts, strict=False)
    return torch.tensor([start + place for tree, start in placed for place in tree.predicting])


def _logprobs(decoder: Network, hidden_UD: Tensor, row_M: Tensor, targets_M: Tensor) -> Tensor:
    """Log-probabilities of targets, each predicted from a row, and 1.0 where one is the first choice, [2, M]."""
    row_M, order_M = row_M.sort()
    if isinstance(decoder, KernelDecoder) and not decoder.rounds_many:
        found = decoder.logprobs(hidden_UD, torch.bincount(row_M), targets_M[order_M])
    else:
        found = _by_parts(decoder, hidden_UD, row_M, targets_M[order_M])
    return found[:, order_M.argsort().to(found.device)]


def _by_parts(decoder: Network, hidden_UD: Tensor, row_M: Tensor, targets_M: Tensor) -> Tensor:
    """The same of sorted rows, by logits that are all there for some rows at a time."""
    device = hidden_UD.device
    counts = torch.bincount(row_M // LOGIT_ROWS).tolist()
    rows, targets = (torch.split(x.to(device), counts) for x in (row_M % LOGIT_ROWS, targets_M))
    parts = zip(torch.split(hidden_UD, LOGIT_ROWS), rows, targets, strict=True)
    return torch.cat([_of_part(decoder, *part) for part in parts], 1)


def _of_part(decoder: Network, hidden_CD: Tensor, row_P: Tensor, target_P: Tensor) -> Tensor:
    # Not logsumexp of the few rows alone: torch's fused kernel for all takes a third of its time on a CPU.
    logprobs_CV = decoder.logits(hidden_CD).float().log_softmax(-1)
    first_P = logprobs_CV.argmax(-1)[row_P] == target_P
    return torch.stack([logprobs_CV[row_P, target_P], first_P.float()])
