"""The C++ kernel against plain torch, over shapes, dtypes, windows and levels of instructions."""

import pytest
import torch

from cpu_kernels import needs_kernels
from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cpu.attention import CppAttention
from roslin.engine.cpu.library import LEVELS, library
from roslin.engine.gathered import GatheredAttention
from roslin.engine.queries import Layer, Queries


def queries_of(lengths: list[int], window: int | None) -> Queries:
    """Each of a sequence of its own, whose blocks lie anywhere."""
    width = blocks_for(max(lengths))
    tables = torch.randperm(len(lengths) * width).view(len(lengths), width).int()
    slots = torch.arange(len(lengths)).flip(0).int()
    return Queries(tables, slots, torch.tensor(lengths, dtype=torch.int32), max(lengths), window)


def layer_of(blocks: int, groups: int, head_dim: int, dtype: torch.dtype) -> Layer:
    keys, values = torch.randn(2, blocks, groups, BLOCK, head_dim).to(dtype)
    return keys, values


@needs_kernels
@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.float32,) * 2, (torch.float32, torch.bfloat16), (torch.bfloat16,) * 2]
)
@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256, 20, 7])
@pytest.mark.parametrize(("heads", "groups"), [(3, 3), (6, 2)])
@pytest.mark.parametrize("window", [None, 9])
def test_it_equals_plain_torch(
    dtype: torch.dtype, kept: torch.dtype, head_dim: int, heads: int, groups: int, window: int | None
) -> None:
    torch.manual_seed(head_dim)
    lengths = [1, 2, 15, 16, 17, 53, 130]
    queries = queries_of(lengths, window)
    layer = layer_of(queries.tables_SW.numel(), groups, head_dim, kept)
    # As they come: a part of a wider row.
    q_MHK = torch.randn(len(lengths), heads + 2, head_dim).to(dtype)[:, :heads]
    expected = GatheredAttention().attend(layer, q_MHK, queries)
    found_library = library()
    assert found_library is not None
    highest = found_library.roslin_level()
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    try:
        for level in LEVELS:
            if found_library.roslin_use_level(level) == level:
                found = CppAttention().attend(layer, q_MHK, queries)
                torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    finally:
        found_library.roslin_use_level(highest)


@needs_kernels
def test_a_token_is_the_same_to_the_bit_whatever_stands_beside_it_and_however_many_threads_there_are() -> None:
    torch.manual_seed(0)
    queries = queries_of([300, 40, 299, 1200], None)
    layer = layer_of(queries.tables_SW.numel(), 4, 64, torch.float32)
    q_MHK = torch.randn(4, 4, 64)
    together = CppAttention().attend(layer, q_MHK, queries)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for one in range(4):
                own = slice(one, one + 1)
                alone = Queries(queries.tables_SW, queries.slots_M[own], queries.lengths_M[own], 1200, None)
                assert torch.equal(CppAttention().attend(layer, q_MHK[own], alone), together[own])
    finally:
        torch.set_num_threads(threads)


@needs_kernels
@pytest.mark.parametrize(
    ("dtype", "kept"), [(torch.float32,) * 2, (torch.float32, torch.bfloat16), (torch.bfloat16,) * 2]
)
def test_it_writes_as_plain_torch_does(dtype: torch.dtype, kept: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = layer_of(5, 3, 20, kept)
    layer = plain[0].clone(), plain[1].clone()
    places = torch.randperm(5 * BLOCK)[:30]
    k_NGK, v_NGK = torch.randn(30, 9, 20).to(dtype).split(3, 1)[1:]
    GatheredAttention().write(plain, k_NGK, v_NGK, places)
    CppAttention().write(layer, k_NGK, v_NGK, places)
    assert torch.equal(layer[0], plain[0])
    assert torch.equal(layer[1], plain[1])


@needs_kernels
def test_numbers_that_are_none_stay_none() -> None:
    queries = queries_of([20], None)
    for place in (0, 1):
        layer = layer_of(2, 1, 64, torch.float32)
        layer[place][int(queries.tables_SW[0, 1]), 0, 2] = torch.nan
        assert CppAttention().attend(layer, torch.randn(1, 1, 64), queries).isnan().all()
