"""The Triton kernels, in the interpreter where there is no GPU, against plain torch."""

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.flash_decoding import PART, TritonAttention
from roslin.engine.gathered import GatheredAttention
from roslin.engine.queries import Layer, Queries

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def asked(lengths: list[int], window: int | None) -> Queries:
    width = blocks_for(max(lengths))
    tables = torch.randperm(len(lengths) * width).view(len(lengths), width).int()
    slots = torch.arange(len(lengths)).flip(0).int()
    counts = torch.tensor(lengths, dtype=torch.int32)
    return Queries(tables.to(DEVICE), slots.to(DEVICE), counts.to(DEVICE), max(lengths), window)


def layer_of(blocks: int, groups: int, head_dim: int, dtype: torch.dtype) -> Layer:
    keys, values = torch.randn(2, blocks, groups, BLOCK, head_dim).to(DEVICE, dtype)
    return keys, values


@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256, 20, 7])
@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (3, 1)])
@pytest.mark.parametrize("window", [None, 9])
def test_it_equals_plain_torch(head_dim: int, heads: int, groups: int, window: int | None) -> None:
    torch.manual_seed(head_dim)
    # In one part, on a part's edge, and in two.
    queries = asked([1, 17, PART, PART + 30], window)
    layer = layer_of(queries.tables_SW.numel(), groups, head_dim, torch.float32)
    q_MHK = torch.randn(4, heads, head_dim, device=DEVICE)
    expected = GatheredAttention().attend(layer, q_MHK, queries)
    torch.testing.assert_close(TritonAttention().attend(layer, q_MHK, queries), expected, atol=2e-5, rtol=2e-5)


def test_bfloat16_is_as_close_as_its_rounding() -> None:
    torch.manual_seed(0)
    queries = asked([5, 40], None)
    layer = layer_of(queries.tables_SW.numel(), 2, 64, torch.bfloat16)
    q_MHK = torch.randn(2, 4, 64, device=DEVICE).bfloat16()
    expected = GatheredAttention().attend(layer, q_MHK, queries)
    torch.testing.assert_close(TritonAttention().attend(layer, q_MHK, queries), expected, atol=2e-2, rtol=2e-2)


def test_it_writes_as_plain_torch_does() -> None:
    plain = layer_of(4, 3, 20, torch.float32)
    layer = plain[0].clone(), plain[1].clone()
    places = torch.randperm(4 * BLOCK, device=DEVICE)[:12]
    k_NGK, v_NGK = torch.randn(12, 9, 20, device=DEVICE).split(3, 1)[1:]
    for kernel, kept in ((GatheredAttention(), plain), (TritonAttention(), layer)):
        kernel.write(kept, k_NGK, v_NGK, places)
    assert torch.equal(layer[0], plain[0])
    assert torch.equal(layer[1], plain[1])
