"""Log-probabilities of given tokens, many rows in one packed pass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roslin.engine.network import Network
from roslin.errors import InputError
from roslin.model import PackedAttention, packed_positions
from roslin.model.finite import find_fault, not_finite, watched_hidden

TOKENS_PER_PASS = 4096
LOGIT_ROWS = 512
"""Rows of the head computed at once: 512 rows of 50,688 logits in fp32 are 100 MB."""


@dataclass(frozen=True)
class ScoreRow:
    """A run of ids of which those from `start` on are scored, each given all before it."""

    ids: Sequence[int]
    start: int

    def faults(self, vocabulary: int, positions: int) -> list[str]:
        """All that is wrong with this row, a line each."""
        found = []
        if not 1 <= self.start < len(self.ids):
            found.append(
                f"scoring starts at token {self.start} of {len(self.ids)}; one token must stand before and one after"
            )
        if len(self.ids) > positions:
            found.append(f"{len(self.ids)} tokens, and the model has {positions} positions; shorten the text")
        if self.ids and not 0 <= min(self.ids) <= max(self.ids) < vocabulary:
            found.append(f"ids outside 0 … {vocabulary - 1}; they were made with another tokenizer")
        return found


@torch.inference_mode()
def score(decoder: Network, rows: Sequence[ScoreRow]) -> list[list[float]]:
    """The log-probability of every scored id, row by row.

    Raises InputError naming every row that cannot be scored, and MachineError for numbers that are none.
    """
    config = decoder.config
    faults = [(number, row.faults(config.vocab_rows, config.positions)) for number, row in enumerate(rows, 1)]
    if any(found for _, found in faults):
        raise InputError("\n".join(f"row {number}: {'; '.join(found)}." for number, found in faults if found))
    return [logprobs for group in _passes(rows) for logprobs in _score_pass(decoder, group)]


def _passes(rows: Sequence[ScoreRow]) -> Iterator[list[ScoreRow]]:
    """Consecutive rows in groups of at most TOKENS_PER_PASS tokens (or one longer row)."""
    group: list[ScoreRow] = []
    for row in rows:
        if group and sum(len(r.ids) for r in group) + len(row.ids) > TOKENS_PER_PASS:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _score_pass(decoder: Network, rows: Sequence[ScoreRow]) -> list[list[float]]:
    # A row's last id is only predicted, never read.
    lengths = [len(row.ids) - 1 for row in rows]
    device = decoder.device
    ids_N = torch.tensor([token for row in rows for token in row.ids[:-1]], device=device)
    stream = ids_N, packed_positions(lengths).to(device), PackedAttention(lengths, decoder.config.window)
    hidden_ND = watched_hidden(decoder, *stream)
    scored = torch.cat([torch.arange(length) >= row.start - 1 for length, row in zip(lengths, rows, strict=True)])
    targets = [token for row in rows for token in row.ids[row.start :]]
    logprobs_M = _logprobs(decoder, hidden_ND[scored.to(device)], torch.tensor(targets, device=device))
    if not logprobs_M.isfinite().all():
        raise not_finite(find_fault(decoder, *stream, hidden_ND), decoder.dtype)
    counts = [len(row.ids) - row.start for row in rows]
    return [part.tolist() for part in torch.split(logprobs_M, counts)]


def _logprobs(decoder: Network, all_hidden_MD: Tensor, all_targets_M: Tensor) -> Tensor:
    pieces = []
    for hidden_ND, targets_N in zip(_parts(all_hidden_MD), _parts(all_targets_M), strict=True):
        logits_NV = decoder.logits(hidden_ND).float()
        pieces.append(logits_NV.gather(-1, targets_N[:, None])[:, 0] - logits_NV.logsumexp(-1))
    return torch.cat(pieces)


def _parts(rows_M: Tensor) -> tuple[Tensor, ...]:
    return torch.split(rows_M, LOGIT_ROWS)
