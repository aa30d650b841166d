"""A GPU's attention, told to another process: the same tokens over that one's cache."""

import pickle

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine.cache import KVCache
from roslin.engine.gpu.paged import GpuAttention, SharedPlaces, Tokens
from roslin.engine.parallel.attends import SharedCache, described, made
from roslin.errors import UsageError
from roslin.model import PackedAttention
from roslin.model.finite import Watched
from tiny_decoders import tiny_decoder

CPU = torch.device("cpu")


def filled(kind: type[KVCache]) -> KVCache:
    cache = kind(tiny_decoder("gpt_neox").config, torch.float32, CPU)
    assert cache.provide(4)
    return cache


@pytest.mark.parametrize("runs_T4", [None, torch.tensor([[2, 3, 0, 1]], dtype=torch.int32)])
@pytest.mark.parametrize("shared", [None, SharedPlaces(torch.arange(5), torch.ones(2, 4), 3)])
def test_what_is_told_is_what_was_meant(runs_T4: torch.Tensor | None, shared: SharedPlaces | None) -> None:
    mine, theirs = filled(SharedCache), filled(KVCache)
    mine.number = 7
    tables_SW = torch.arange(12, dtype=torch.int32).view(3, 4)
    rows_LN = torch.arange(10).view(2, 5)
    tokens = Tokens(rows_LN[0], rows_LN[1], 2, runs_T4, shared=shared)
    what, tensors = described(Watched(GpuAttention(mine, tables_SW, tokens), 3))
    found = made(pickle.loads(pickle.dumps(what)), [tensor.clone() for tensor in tensors], {7: theirs})
    assert isinstance(found, Watched)
    assert isinstance(found.attend, GpuAttention)
    cache, tables, its = found.attend.parts
    assert cache is theirs
    assert torch.equal(tables, tables_SW)
    assert torch.equal(its.slots_N, rows_LN[0])
    assert torch.equal(its.positions_N, rows_LN[1])
    assert its.alone == 2
    assert (its.runs_T4 is None) == (runs_T4 is None)
    assert (its.shared is None) == (shared is None)
    if shared is not None and its.shared is not None:
        assert torch.equal(its.shared.tiles_TX, shared.tiles_TX)
        assert its.shared.shares == 3


def test_scoring_is_refused() -> None:
    with pytest.raises(UsageError, match="score with one process"):
        described(PackedAttention([3]))
