"""Held-out loss: what a model makes of records that it was not tuned on, record by record."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from roslin.model import Decoder, PackedAttention, packed_positions
from roslin.model.finite import find_fault
from roslin.model.grad_mode import no_grad
from roslin.statistics import FEWEST_FOR_INTERVALS, RESAMPLES, Interval, ratio_interval
from roslin.tokens import Example
from roslin.tune.dealing import padded
from roslin.tune.loss import answer_nll
from roslin.tune.packing import Pack, best_fit, make_pack
from roslin.tune.processes import ALONE, Processes


@dataclass(frozen=True)
class HeldOutLoss:
    """Summed negative log-likelihoods (nats) and token counts, one entry a record, in the records' order."""

    nll: list[float]
    """Of the whole answer, end key included."""
    end_nll: list[float]
    """Of the end key alone."""
    tokens: list[int]
    """Answer tokens, end key included."""
    categories: list[str] = field(default_factory=list)

    @property
    def loss(self) -> float:
        """Nats an answer token, end key included."""
        return sum(self.nll) / sum(self.tokens)

    @property
    def loss_without_end(self) -> float:
        """Nats an answer token, the end key left out."""
        return sum(self.nll_without_end) / sum(self.tokens_without_end)

    @property
    def nll_without_end(self) -> list[float]:
        """Summed negative log-likelihoods without the end key."""
        return [whole - end for whole, end in zip(self.nll, self.end_nll, strict=True)]

    @property
    def tokens_without_end(self) -> list[int]:
        """Answer tokens without the end key."""
        return [count - 1 for count in self.tokens]

    def part(self, indices: Sequence[int]) -> "HeldOutLoss":
        """The loss of some of the records."""
        return HeldOutLoss(
            [self.nll[i] for i in indices],
            [self.end_nll[i] for i in indices],
            [self.tokens[i] for i in indices],
            [self.categories[i] for i in indices],
        )

    def parts(self) -> dict[str, "HeldOutLoss"]:
        """The loss of each category's records, in alphabetic order; records without a category count as `none`."""
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.categories):
            places.setdefault(name or "none", []).append(place)
        return {name: self.part(places[name]) for name in sorted(places)}

    def by_category(self) -> dict[str, float]:
        """Loss of each category, in alphabetic order; records without one count as `none`."""
        return {name: part.loss for name, part in self.parts().items()}

    def interval(self, resamples: int = RESAMPLES) -> Interval | None:
        """The loss with its 95 % bootstrap interval over records; None where records are too few for one."""
        if len(self.tokens) < FEWEST_FOR_INTERVALS:
            return None
        return ratio_interval(self.nll, self.tokens, resamples=resamples)


class HeldOutSet:
    """Held-out examples, packed once, to be measured as often as wanted."""

    def __init__(self, examples: Sequence[Example], categories: Sequence[str], row_length: int) -> None:
        """Pack the examples into rows of at most `row_length` tokens."""
        self.categories = list(categories)
        self.digest = digest_of(examples)
        self._counts = [example.answer_count for example in examples]
        self._rows = best_fit([len(example.ids) for example in examples], row_length)
        self._packs = [make_pack([examples[i] for i in row]) for row in self._rows]

    def __len__(self) -> int:
        return len(self._counts)

    def where_it_broke(self, decoder: Decoder, processes: Processes = ALONE) -> str:
        """The layer at which the numbers of a measurement stop being finite, in words."""
        return where_it_broke(decoder, self._share(self._packs, processes), processes)

    @no_grad
    def measure(self, decoder: Decoder, processes: Processes = ALONE) -> HeldOutLoss:
        """The loss of every record under `decoder` as it is now; each process measures a part, and all get it all."""
        rows, packs = processes.part(self._rows), self._share(self._packs, processes)
        found = [pack_nll(decoder, pack).cpu().double().numpy() for pack in packs]
        release(decoder)
        nll, end_nll = np.zeros(len(self)), np.zeros(len(self))
        for index, losses in chain(*processes.collected(list(self._by_record(rows, found)))):
            nll[index], end_nll[index] = losses
        return HeldOutLoss(nll.tolist(), end_nll.tolist(), self._counts, self.categories)

    @staticmethod
    def _share(packs: Sequence[Pack], processes: Processes) -> list[Pack]:
        return padded(processes.part(packs), -(-len(packs) // processes.count))

    def _by_record(
        self, rows: Sequence[list[int]], found: Sequence[NDArray[np.float64]]
    ) -> Iterator[tuple[int, tuple[float, float]]]:
        """Each record's place, and the losses of its whole answer and of its end key."""
        for row, losses in zip(rows, found[: len(rows)], strict=True):
            ends = np.cumsum([self._counts[i] for i in row])
            for index, part in zip(row, np.split(losses, ends[:-1]), strict=True):
                yield index, (float(part.sum()), float(part[-1]))


def digest_of(examples: Sequence[Example]) -> str:
    """Hash of examples' ids and of where their answers begin, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(np.asarray([example.answer_start, *example.ids], dtype=np.int32).tobytes())
    return digest.hexdigest()


def hidden_of_answers(decoder: Decoder, pack: Pack) -> torch.Tensor:
    """Final hidden states [M, D] at the positions from which a pack's answer tokens are predicted."""
    hidden_ND = decoder.hidden(*_stream(decoder, pack))
    return hidden_ND[pack.predict_M.to(decoder.device)]


def _stream(decoder: Decoder, pack: Pack) -> tuple[torch.Tensor, torch.Tensor, PackedAttention]:
    positions = packed_positions(pack.lengths).to(decoder.device)
    return pack.ids_N.to(decoder.device), positions, PackedAttention(pack.lengths, decoder.config.window)


@no_grad
def where_it_broke(decoder: Decoder, packs: Sequence[Pack], processes: Processes = ALONE) -> str:
    """The layer at which the numbers of the first pack whose loss is no number stop being finite, in words.

    `packs` are this process's, as many as every other's, and all of them get the words of the first that has any.
    """
    broken = [pack for pack in packs if not pack_nll(decoder, pack).isfinite().all()]
    stream = _stream(decoder, (broken or list(packs))[0])
    words = find_fault(decoder, *stream, decoder.hidden(*stream))
    release(decoder)
    found = [words for words in processes.collected(words if broken else None) if words]
    return found[0] if found else "in the sum over the update"


def release(decoder: Decoder) -> None:
    """After passes without a backward one: give up what a decoder in shards has gathered, before weights change."""
    if reshard := getattr(decoder, "reshard", None):
        reshard()


def pack_nll(decoder: Decoder, pack: Pack) -> torch.Tensor:
    """Negative log-likelihood of each answer token of a pack, in order."""
    hidden_MD = hidden_of_answers(decoder, pack)
    return answer_nll(hidden_MD, decoder.head.weight, decoder.head.bias, pack.target_M.to(decoder.device))
