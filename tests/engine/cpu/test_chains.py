"""The C++ kernel for trees of rows against plain attention of each row alone in float64, at every level."""

import pytest
import torch
from torch import Tensor

from cpu_kernels import needs_kernels
from roslin.engine import ScoreRow
from roslin.engine.cpu.chains import CppChainAttention
from roslin.engine.cpu.library import LEVELS, library
from roslin.engine.tree import Tree
from tiny_decoders import tiny_decoder

pytestmark = needs_kernels

CONFIG = tiny_decoder("gpt_neox").config


def grown(prefix: int, rests: list[int]) -> list[ScoreRow]:
    """Rows that begin with the same random ids and go on by themselves."""
    shared = torch.randint(0, 61, (prefix,)).tolist()
    return [ScoreRow([*shared, *torch.randint(0, 61, (rest,)).tolist(), 1], 1) for rest in rests]


def trees_of_all_kinds() -> list[Tree]:
    torch.manual_seed(0)
    kinds = [grown(40, [28, 7, 90]), grown(0, [1]), grown(0, [17, 33]), grown(130, [3, 16, 4, 1]), grown(5, [0, 9])]
    return [Tree(rows, CONFIG) for rows in kinds]


def numbers_of(trees: list[Tree], heads: int, groups: int, head_dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as they come: parts of wider rows."""
    tokens = sum(tree.size for tree in trees)
    q, k, v = torch.randn(tokens, heads + 2 * groups, head_dim).split([heads, groups, groups], 1)
    return q, k, v


def plain(trees: list[Tree], q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor, window: int | None) -> Tensor:
    """Each token by itself, from the definition."""
    shared = q_NHK.shape[1] // k_NGK.shape[1]
    k_NHK, v_NHK = (x.double().repeat_interleave(shared, 1) for x in (k_NGK, v_NGK))
    outs, start = [], 0
    for tree in trees:
        for place in range(tree.size):
            path = [start + other for other in range(place + 1) if tree.ends[other] > place][-(window or tree.size) :]
            scores_HT = torch.einsum("hk,thk->ht", q_NHK[start + place].double(), k_NHK[path]) * q_NHK.shape[2] ** -0.5
            outs.append(torch.einsum("ht,thk->hk", scores_HT.softmax(-1), v_NHK[path]))
        start += tree.size
    return torch.stack(outs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [64, 80, 128, 20, 7])
@pytest.mark.parametrize(("heads", "groups", "window"), [(3, 3, None), (6, 2, None), (2, 1, 9), (2, 2, 40)])
def test_it_equals_plain_attention(
    dtype: torch.dtype, head_dim: int, heads: int, groups: int, window: int | None
) -> None:
    trees = trees_of_all_kinds()
    qkv = [x.to(dtype) for x in numbers_of(trees, heads, groups, head_dim)]
    expected = plain(trees, *qkv, window)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    found_library = library()
    assert found_library is not None
    highest = found_library.roslin_level()
    try:
        for level in LEVELS:
            if found_library.roslin_use_level(level) == level:
                found = CppChainAttention(trees, window)(0, *qkv)
                assert found.dtype == dtype
                torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
    finally:
        found_library.roslin_use_level(highest)


@pytest.mark.parametrize("window", [None, 25])
def test_a_row_is_the_same_to_the_bit_whatever_is_laid_out_beside_it(window: int | None) -> None:
    torch.manual_seed(1)
    trees = trees_of_all_kinds()
    q, k, v = numbers_of(trees, 4, 2, 64)
    together = CppChainAttention(trees, window)(0, q, k, v)
    threads, start = torch.get_num_threads(), 0
    try:
        torch.set_num_threads(3)
        assert torch.equal(CppChainAttention(trees, window)(0, q, k, v), together)
    finally:
        torch.set_num_threads(threads)
    for tree in trees:
        for number, row in enumerate(tree.rows):
            path = [start + place for place in path_of(tree, number)]
            alone = CppChainAttention([Tree([row], CONFIG)], window)(0, q[path], k[path], v[path])
            assert torch.equal(alone, together[path])
        start += tree.size


def path_of(tree: Tree, row: int) -> list[int]:
    """The places of a row's tokens."""
    last = tree.predicting[sum(one.scored for one in tree.rows[: row + 1]) - 1]
    return [place for place in range(last + 1) if tree.ends[place] > last]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_numbers_that_are_none_stay_none_in_their_rows_and_leave_others_alone(which: int) -> None:
    trees = [Tree(grown(20, [30, 30]), CONFIG), Tree(grown(0, [40]), CONFIG)]
    numbers = [x.contiguous() for x in numbers_of(trees, 1, 1, 64)]
    numbers[which][0, 0, 3] = torch.nan
    found = CppChainAttention(trees, None)(0, *numbers)
    assert found[0].isnan().any()
    assert which == 0 or found[: trees[0].size].isnan().flatten(1).any(1).all()
    assert found[trees[0].size :].isfinite().all()
