"""4-bit weights: the nearest levels, what dequantising gives back, rows as they are, and the layer that holds them."""

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from roslin.errors import InputError
from roslin.model.nf4 import LEVELS, Nf4Weight, _level_pairs, cat_rows, quantize_nf4, select_rows
from roslin.model.nf4_linear import Nf4Linear

# Subnormal numbers leave too few bits for a relative bound.
NUMBERS = st.floats(-1000.0, 1000.0, width=32, allow_subnormal=False)
BLOCKS = st.sampled_from([32, 64])


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Any numbers for a few, random ones of any scale around them; any shape, so that last blocks are cut short."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 150))
    scale = 10.0 ** draw(st.integers(-6, 3))
    numbers = scale * torch.randn(rows * columns, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))
    drawn = torch.tensor(draw(st.lists(NUMBERS, max_size=40)))[: len(numbers)]
    numbers[: len(drawn)] = drawn
    return numbers.view(rows, columns)


def numbers_and_scales(matrix: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Each number, and its block's largest magnitude, in fp64: worked out the slow way."""
    blocks = matrix.double().flatten().split(block)
    return torch.cat(blocks), torch.cat([torch.full_like(part, part.abs().max().item()) for part in blocks])


def assert_same(one: Nf4Weight, other: Nf4Weight) -> None:
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.absmax, other.absmax)
    assert (one.shape, one.block, one.dtype) == (other.shape, other.block, other.dtype)


def test_a_block_worked_by_hand() -> None:
    row = torch.zeros(1, 64)
    row[0, :6] = torch.tensor([-2.0, 2.0, 0.5, 1.0, -0.36, 0.05])
    weight = quantize_nf4(row)
    assert weight.absmax.tolist() == [2.0]
    # As shares of 2: -1 and 1; 0.25, level 10; 0.5, level 12; -0.18, level 5; 0.025, level 7; and zero is level 7.
    assert weight.codes.tolist() == [0x0F, 0xAC, 0x57, *[0x77] * 29]
    expected = [2 * LEVELS[level] for level in (0, 15, 10, 12, 5, 7)]
    assert torch.equal(weight.dequantize()[0, :6], torch.tensor(expected))


def test_a_number_between_two_levels_takes_the_lower() -> None:
    levels = torch.tensor(LEVELS)
    between = (levels[:-1] + levels[1:]) / 2
    weight = quantize_nf4(torch.cat([between, torch.ones(17)])[None])
    assert torch.equal(weight.dequantize()[0, :15], levels[:-1])


@given(matrices(), BLOCKS)
def test_every_number_comes_back_as_its_nearest_level(matrix: Tensor, block: int) -> None:
    weight = quantize_nf4(matrix, block)
    numbers, scales = numbers_and_scales(matrix, block)
    errors = (numbers - weight.dequantize().double().flatten()).abs()
    nearest = (numbers[:, None] - scales[:, None] * torch.tensor(LEVELS, dtype=torch.float64)).abs().amin(1)
    assert (errors <= nearest + 1e-6 * scales).all()
    assert (errors <= 0.152 * scales).all()  # half the widest gap, 1 - 0.696


@given(matrices(), BLOCKS)
def test_quantising_again_changes_nothing(matrix: Tensor, block: int) -> None:
    weight = quantize_nf4(matrix, block)
    assert_same(quantize_nf4(weight.dequantize(), block), weight)


@given(matrices(), BLOCKS)
def test_the_sizes_follow_from_the_shape(matrix: Tensor, block: int) -> None:
    weight = quantize_nf4(matrix, block)
    assert (weight.codes.dtype, weight.absmax.dtype) == (torch.uint8, torch.float32)
    assert weight.codes.shape == (-(-matrix.numel() // 2),)
    assert weight.absmax.shape == (-(-matrix.numel() // block),)
    assert weight.dequantize().shape == matrix.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_dtype_comes_back_and_another_is_rounded_once(dtype: torch.dtype) -> None:
    matrix = torch.randn(3, 70).to(dtype)
    weight = quantize_nf4(matrix)
    assert weight.dtype == weight.dequantize().dtype == dtype
    assert_same(quantize_nf4(matrix.float()), Nf4Weight(weight.codes, weight.absmax, (3, 70), 64, torch.float32))
    assert torch.equal(weight.dequantize(), weight.dequantize(torch.float32).to(dtype))
    assert quantize_nf4(matrix.double()).dtype == torch.float32


def test_the_input_is_left_alone() -> None:
    matrix = nn.Parameter(torch.randn(4, 64))
    before = matrix.detach().clone()
    weight = quantize_nf4(matrix)
    weight.dequantize().add_(1)
    assert torch.equal(matrix, before)
    assert not weight.absmax.requires_grad


def test_a_block_that_is_none() -> None:
    with pytest.raises(InputError, match="block of 48 numbers"):
        quantize_nf4(torch.ones(2, 64), 48)


@given(st.data(), BLOCKS)
@settings(max_examples=50)
def test_rows_are_taken_and_stacked_as_if_before(data: st.DataObject, block: int) -> None:
    columns = block * data.draw(st.integers(1, 3))
    heights = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    matrices = [torch.randn(height, columns) for height in heights]
    stacked = cat_rows([quantize_nf4(matrix, block) for matrix in matrices])
    assert_same(stacked, quantize_nf4(torch.cat(matrices), block))
    rows = torch.tensor(data.draw(st.lists(st.integers(0, sum(heights) - 1), max_size=8)), dtype=torch.long)
    assert_same(select_rows(stacked, rows), quantize_nf4(torch.cat(matrices)[rows], block))
    middle = heights[0]
    assert_same(cat_rows([select_rows(stacked, slice(middle)), select_rows(stacked, slice(middle, None))]), stacked)


def test_fused_rows_by_head_go_to_queries_keys_and_values_and_back() -> None:
    """The order of GPT-NeoX's files, [heads, 3, head_dim], and the decoder's, [3, heads, head_dim]."""
    heads, head_dim, width = 4, 16, 64
    theirs = torch.randn(heads * 3 * head_dim, width)
    ours = theirs.view(heads, 3, head_dim, width).transpose(0, 1).reshape(-1, width)
    order = torch.arange(len(theirs)).view(heads, 3, head_dim).transpose(0, 1).flatten()
    weight = quantize_nf4(theirs)
    moved = select_rows(weight, order)
    assert_same(moved, quantize_nf4(ours))
    assert_same(select_rows(moved, order.argsort()), weight)


def test_rows_that_share_blocks_stay_together() -> None:
    weight = quantize_nf4(torch.randn(4, 48))
    assert not weight.has_whole_rows
    for act in (lambda: select_rows(weight, slice(1)), lambda: cat_rows([weight, weight])):
        with pytest.raises(InputError, match=r"shape \[4, 48\] .* blocks of 64"):
            act()


def test_matrices_of_different_make_do_not_stack() -> None:
    first = quantize_nf4(torch.randn(2, 128))
    for other in (
        quantize_nf4(torch.randn(2, 64)),
        quantize_nf4(torch.randn(2, 128), 128),
        quantize_nf4(torch.randn(2, 128).half()),
    ):
        with pytest.raises(InputError, match="different make"):
            cat_rows([first, other])


@pytest.fixture(params=[True, False], ids=["bias", "no-bias"])
def linear(request: pytest.FixtureRequest) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(70, 33, bias=request.param)


@pytest.mark.parametrize("shape", [(70,), (5, 70), (2, 3, 70), (0, 70)])
def test_the_layer_and_its_gradients_are_those_of_the_dequantised_one(
    linear: nn.Linear, shape: tuple[int, ...]
) -> None:
    layer = Nf4Linear.from_linear(linear)
    plain = nn.Linear(70, 33, bias=linear.bias is not None)
    plain.load_state_dict({**linear.state_dict(), "weight": layer.dequantized()})
    x, pull = torch.randn(shape), torch.randn(*shape[:-1], 33)
    results = []
    for module in (layer, plain):
        module.zero_grad()
        own_x = x.clone().requires_grad_()
        out = module(own_x)
        (out * pull).sum().backward()
        results.append((out, own_x.grad, None if module.bias is None else module.bias.grad.clone()))
    for ours, theirs in zip(*results, strict=True):
        assert ours is theirs or torch.allclose(ours, theirs, atol=1e-6)
    assert torch.equal(results[0][0], results[1][0])


def test_gradients_of_a_frozen_bias_and_of_a_plain_input_are_not_made(linear: nn.Linear) -> None:
    layer = Nf4Linear.from_linear(linear)
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    assert not layer(torch.randn(2, 70)).requires_grad
    layer(torch.randn(2, 70, requires_grad=True)).sum().backward()
    assert layer.bias is None or layer.bias.grad is None


def test_the_gradient_is_the_functions_own() -> None:
    layer = Nf4Linear.from_linear(nn.Linear(10, 6)).double()
    x = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_nothing_as_large_as_the_matrix_lives_from_forward_to_backward(
    linear: nn.Linear, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Tensor]] = []
    dequantize = Nf4Weight.dequantize

    def watched(self: Nf4Weight, dtype: torch.dtype | None = None) -> Tensor:
        matrix = dequantize(self, dtype)
        made.append(weakref.ref(matrix))
        return matrix

    monkeypatch.setattr(Nf4Weight, "dequantize", watched)
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        out = Nf4Linear.from_linear(linear)(torch.randn(2, 70, requires_grad=True))
    assert kept == []
    assert [reference() for reference in made] == [None]
    out.sum().backward()
    assert len(made) == 2


def test_the_layer_has_buffers_for_the_codes_and_no_weight(linear: nn.Linear) -> None:
    layer = Nf4Linear.from_linear(linear)
    assert (layer.in_features, layer.out_features) == (70, 33)
    assert [name for name, _ in layer.named_parameters()] == (["bias"] if linear.bias is not None else [])
    assert not hasattr(layer, "weight")
    assert_same(layer.quantized, quantize_nf4(linear.weight))
    assert torch.equal(layer.dequantized(torch.float16), layer.dequantized().half())


def test_a_change_of_dtype_leaves_the_magnitudes_alone(linear: nn.Linear) -> None:
    layer = Nf4Linear.from_linear(linear).to(torch.bfloat16)
    assert_same(layer.quantized, quantize_nf4(linear.weight))
    x = torch.randn(2, 70).bfloat16()
    bias = None if linear.bias is None else linear.bias.bfloat16()
    assert torch.equal(layer(x), F.linear(x, layer.dequantized(torch.bfloat16), bias))


def test_the_state_of_one_layer_loads_into_another(linear: nn.Linear) -> None:
    layer = Nf4Linear.from_linear(linear)
    other = Nf4Linear.from_linear(nn.Linear(70, 33, bias=linear.bias is not None))
    other.load_state_dict(layer.state_dict())
    assert_same(other.quantized, layer.quantized)


def test_a_layer_first_used_in_inference_can_be_trained_through(linear: nn.Linear) -> None:
    layer = Nf4Linear.from_linear(linear)
    _level_pairs.cache_clear()
    with torch.inference_mode():
        expected = layer(torch.ones(1, 70))
    x = torch.ones(1, 70, requires_grad=True)
    out = layer(x)
    out.sum().backward()
    assert torch.equal(out, expected)
    assert x.grad is not None
