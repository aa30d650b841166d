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
from roslin.model.stored_rows import StoredRows
from roslin.model.vocabulary import fitting_rows, mean_row, rows_of_mean, used_rows
from roslin.tune.adamw.shards import first_row, here
from roslin.tune.base import Base, Vocabulary, digest_of_sums, sums_of_bits, to_precision
from roslin.tune.processes import Processes
from roslin.tune.recipe import Sharding
from roslin.tune.sharding import make_mesh, shard

ROW_A_TOKEN = ("embedding.weight", "head.weight", "head.bias")


@dataclass(frozen=True)
class _Part:
    """What one process read of a parameter, for the checksum of all: from which row, and the sums of its bits."""

    first: int
    sums: list[Tensor]


@torch.no_grad()
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
    shard(decoder, mesh, offload=sharding.offload, on_pass=processes.step)
    decoder.to_empty(device=torch.device("cpu") if sharding.offload else device)
    rows = _Rows(stored, config, fitted, vocabulary, processes)
    low, parts = {}, {}
    for name, parameter in decoder.named_parameters():
        local, first = here(parameter), first_row(parameter)
        weight, parts[name] = rows.read(name, first, first + len(local))
        weight, half = to_precision(weight, precision)
        local.copy_(weight)
        if half is not None:
            low[name] = half.to(local.device)
        processes.step()
    digest = digest_of_sums(config, _whole_sums(stored, processes.collected(parts)))
    return Base(decoder, low or None, stored.dtype, digest)


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

    def read(self, name: str, start: int, stop: int) -> tuple[Tensor, _Part]:
        """Rows `start` to `stop` of a parameter as it will be, and the sums of what the files have of them."""
        there = self._stored.shapes[name][0]
        weight = self._stored.read(name, min(start, there), min(stop, there))
        part = _Part(start, sums_of_bits(weight) if len(weight) else [])
        if name not in ROW_A_TOKEN or not self._of_mean:
            return weight, part
        added = weight.new_empty(stop - start - len(weight), *weight.shape[1:])
        weight = torch.cat([weight, added])
        weight[[row - start for row in self._of_mean if start <= row < stop]] = self._mean(name)
        return weight, part

    def _mean(self, name: str) -> Tensor:
        """Of the used rows, all of which the first process alone reads."""
        mean = None
        if self._processes.is_first:
            mean = mean_row(self._stored.read(name, 0, len(self._used)), self._used)
        mean, *_ = self._processes.collected(mean)
        assert mean is not None
        return mean


def _whole_sums(
    stored: StoredRows, parts: Sequence[dict[str, _Part]]
) -> Iterator[tuple[str, Sequence[int], torch.dtype, list[Tensor]]]:
    """Every parameter's sums from those of its parts; replicas read the same parts, of which one counts."""
    for name, shape in stored.shapes.items():
        by_row = {its[name].first: its[name].sums for its in parts if its[name].sums}
        columns, rows = [], []
        for _, sums in sorted(by_row.items()):
            columns += sums[:-1]
            rows.append(sums[-1])
        yield name, shape, stored.dtype, [*([torch.stack(columns).sum(0)] if columns else []), torch.cat(rows)]
