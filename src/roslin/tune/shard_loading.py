"""A base in shards, loaded without a whole copy anywhere: each process reads its own rows of every parameter.

The files are mapped, so only the pages that hold those rows are read, and nothing is sent between processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from roslin.errors import InputError
from roslin.model import Decoder, ModelConfig
from roslin.model.adapter import is_adapter
from roslin.model.grad_mode import no_grad
from roslin.model.stored_rows import StoredRows
from roslin.model.vocabulary import fitting_rows, mean_row, rows_of_mean, used_rows
from roslin.tune.adamw.shards import first_row, here
from roslin.tune.base import Base, Vocabulary, digest_of_sums, is_rounded, sums_of_bits, to_precision
from roslin.tune.processes import Processes
from roslin.tune.recipe import Sharding
from roslin.tune.sharding import make_mesh, shard

ROW_A_TOKEN = ("embedding.weight", "head.weight", "head.bias")


PIECE = 1 << 20
"""Numbers that are read at a time: what is on its way takes no room to speak of."""


@dataclass
class _Part:
    """What one process reads of a parameter, for the checksum of all: from which row on, and its bits' sums."""

    first: int
    columns: Tensor | None
    """Over the rows, where it is a matrix."""
    rows: Tensor
    """Over the columns; of a vector, the bits."""
    done: int = 0

    def add(self, weight: Tensor) -> None:
        """Go on with the next rows."""
        if not len(weight):
            return
        *columns, rows = sums_of_bits(weight)
        self.rows[self.done : self.done + len(rows)] = rows
        self.done += len(rows)
        if self.columns is not None:
            self.columns += columns[0]


@no_grad
def load_in_shards(
    folder: Path,
    config: ModelConfig,
    vocabulary: Vocabulary,
    *,
    device: torch.device,
    precision: torch.dtype,
    sharding: Sharding,
    processes: Processes,
) -> Base:
    """This process's shards of a base. Raises what `load_decoder` does, and InputError for an adapter."""
    if is_adapter(folder):
        raise InputError(f"{folder} is an adapter: many processes load plain models only. Tune its merged model.")
    mesh = make_mesh(sharding, device, processes.count)
    stored = StoredRows(folder, config)
    fitted = replace(config, vocab_rows=fitting_rows(config.vocab_rows, vocabulary.tokens))
    with torch.device("meta"):
        decoder = Decoder(fitted).to(precision)
    offload = sharding.offload and device.type != "cpu"
    shard(decoder, mesh, offload=offload, on_pass=processes.step)
    decoder.to_empty(device=torch.device("cpu") if offload else device)
    rows = _Rows(stored, config, fitted, vocabulary, processes)
    # All that stays is made before anything is read: between what goes again it would break up the memory.
    parts = {name: rows.part(name, p) for name, p in decoder.named_parameters()}
    low = {
        name: torch.empty_like(here(p), dtype=torch.int16)
        for name, p in decoder.named_parameters()
        if is_rounded(stored.dtype, precision)
    }
    for name, parameter in decoder.named_parameters():
        _read(rows, name, here(parameter), low.get(name), parts[name])
        processes.step()
    digest = digest_of_sums(config, _whole_sums(stored, processes.collected(parts)))
    return Base(decoder, low or None, stored.dtype, digest)


def _read(rows: "_Rows", name: str, local: Tensor, halves: Tensor | None, part: _Part) -> None:
    """Fill this process's rows of a parameter, the low halves of what is rounded, and what the checksum needs."""
    mean = rows.mean(name)
    height = max(1, PIECE * len(local) // max(1, local.numel()))
    for start in range(0, len(local), height):
        piece = slice(start, min(start + height, len(local)))
        weight, stored = rows.read(name, part.first + piece.start, part.first + piece.stop, mean)
        part.add(stored)
        weight, half = to_precision(name, weight, local.dtype)
        local[piece].copy_(weight)
        if halves is not None and half is not None:
            halves[piece].copy_(half)


class _Rows:
    """A base's rows as they are with a row for every token."""

    def __init__(
        self,
        stored: StoredRows,
        config: ModelConfig,
        fitted: ModelConfig,
        vocabulary: Vocabulary,
        processes: Processes,
    ) -> None:
        self._stored, self._processes = stored, processes
        self._used = used_rows(config.vocab_rows, vocabulary.tokens, vocabulary.new_ids)
        self._of_mean = rows_of_mean(
            config.vocab_rows, fitted.vocab_rows, vocabulary.new_ids if vocabulary.init == "mean" else []
        )

    def part(self, name: str, parameter: Tensor) -> _Part:
        """Of a parameter's rows that are this process's and that the files have, before any is read."""
        whole, first = self._stored.shapes[name], first_row(parameter)
        count = min(max(whole[0] - first, 0), len(here(parameter)))
        if len(whole) > 1:
            columns, rows = (torch.zeros(size, dtype=torch.int64) for size in (whole[1], count))
            return _Part(first, columns, rows)
        return _Part(first, None, sums_of_bits(torch.zeros(count, dtype=self._stored.dtype))[0])

    def mean(self, name: str) -> Tensor | None:
        """The row that new ones begin as, where a parameter has new ones. All processes must ask.

        It is the mean of the used rows, all of which the first process alone reads.
        """
        if name not in ROW_A_TOKEN or not self._of_mean:
            return None
        mean = None
        if self._processes.is_first:
            mean = mean_row(self._stored.read(name, 0, len(self._used)), self._used)
        mean, *_ = self._processes.collected(mean)
        return mean

    def read(self, name: str, start: int, stop: int, mean: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows `start` to `stop` of a parameter as it will be, and those of them that the files have."""
        there = self._stored.shapes[name][0]
        stored = self._stored.read(name, min(start, there), min(stop, there))
        if mean is None:
            return stored, stored
        added = stored.new_empty(stop - start - len(stored), *stored.shape[1:])
        weight = torch.cat([stored, added])
        weight[[row - start for row in self._of_mean if start <= row < stop]] = mean
        return weight, stored


def _whole_sums(
    stored: StoredRows, parts: Sequence[dict[str, _Part]]
) -> Iterator[tuple[str, Sequence[int], torch.dtype, list[Tensor]]]:
    """Every parameter's sums from those of its parts; replicas read the same parts, of which one counts."""
    for name, shape in stored.shapes.items():
        read = {its[name].first: its[name] for its in parts if len(its[name].rows)}
        columns = [part.columns for part in read.values() if part.columns is not None]
        rows = torch.cat([part.rows for _, part in sorted(read.items())])
        yield name, shape, stored.dtype, [*([torch.stack(columns).sum(0)] if columns else []), rows]
