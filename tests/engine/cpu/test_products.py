"""The kernels against plain torch in float64, at every level that this processor has."""

import ctypes

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from cpu_kernels import needs_kernels
from roslin.engine.cpu.library import library
from roslin.engine.cpu.many import rounds
from roslin.engine.cpu.matrix import PackedMatrix, Preparation, Products, Source, Sum, Turning
from roslin.model.quantised import QuantisedWeight, quantise_4, quantise_8, quantise_fp8

pytestmark = needs_kernels
needs_rounding = pytest.mark.skipif(not rounds(), reason="this processor multiplies no numbers in bfloat16")

KINDS = ["int8", "fp8", "int4-32", "int4-64", "int4-128", "bfloat16", "float32"]


def weight_of(kind: str, outputs: int, inputs: int) -> Tensor | QuantisedWeight:
    weight = torch.randn(outputs, inputs)
    weight[:, inputs // 2] *= 8
    if kind == "int8":
        return quantise_8(weight)
    if kind == "fp8":
        return quantise_fp8(weight)
    if kind.startswith("int4"):
        return quantise_4(weight, int(kind[5:]))
    return weight.to(getattr(torch, kind))


def plain(weight: Tensor | QuantisedWeight) -> Tensor:
    return weight.dequantize().double() if isinstance(weight, QuantisedWeight) else weight.double()


def close(found: Tensor, expected: Tensor) -> None:
    """Within what whole numbers of 16 bits, block by block, leave of the inputs."""
    error = (found.double() - expected).abs().max() / expected.abs().max()
    assert error < 1e-4, error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 64), (37, 101), (130, 384), (33, 515)])
def test_a_product_equals_plain_torch(level: int, kind: str, outputs: int, inputs: int) -> None:
    torch.manual_seed(outputs)
    weight, bias = weight_of(kind, outputs, inputs), torch.randn(outputs)
    product = Products([Source(inputs)], [Sum(PackedMatrix(weight), 0, bias)])
    for rows in (1, 2, 3, 5, 8, 9, 17):
        x = torch.randn(rows, inputs)
        x[:, 0] *= 10
        [found] = product(x)
        error = (found.double() - F.linear(x.double(), plain(weight), bias.double())).abs()
        assert (error <= rounding(kind, x, plain(weight))).all(), error.max()


def rounding(kind: str, x: Tensor, weight: Tensor) -> Tensor:
    """How far a product may be off: inputs to quantised weights are whole numbers of 16 bits, half a step off each."""
    halves = x.double().abs().amax(1, keepdim=True) / 32767 / 2 if kind.startswith("int") else x.new_zeros(len(x), 1)
    return halves * weight.abs().sum(1) + 1e-5 * (x.double().abs() @ weight.abs().T + 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_the_same_to_the_bit_whatever_rows_and_threads_are_beside_it(level: int, kind: str) -> None:
    torch.manual_seed(1)
    product = Products([Source(200)], [Sum(PackedMatrix(weight_of(kind, 300, 200)), 0)])
    x = torch.randn(300, 200)
    [together] = product(x)
    for row in (0, 7, 8, 255, 256, 299):
        assert torch.equal(product(x[row : row + 1])[0][0], together[row])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(product(x)[0], together)
    finally:
        torch.set_num_threads(threads)


@needs_rounding
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 64), (37, 101), (130, 384), (33, 2515)])
def test_a_rounded_product_is_one_of_rows_in_bfloat16(kind: str, outputs: int, inputs: int) -> None:
    torch.manual_seed(outputs)
    weight, bias = weight_of(kind, outputs, inputs), torch.randn(outputs)
    other = weight_of(kind, outputs, inputs)
    product = Products([Source(inputs)] * 2, [Sum(PackedMatrix(weight), 0, bias, None, PackedMatrix(other), 1)])
    one, two = (plain(each.bfloat16() if kind == "float32" else each) for each in (weight, other))
    off = 2**-8 if kind.startswith("int4") else 2e-5  # numbers of 4 bits are rounded to bfloat16 too
    for rows in (1, 2, 3, 5, 8, 9, 17, 300):
        x, y = torch.randn(rows, inputs), torch.randn(rows, inputs)
        x[:, 0] *= 10
        [found] = product(x, y, rounded=True)
        x, y = x.bfloat16(), y.bfloat16()
        error = (found.double() - F.linear(x.double(), one, bias.double()) - F.linear(y.double(), two)).abs()
        size = x.double().abs() @ one.abs().T + y.double().abs() @ two.abs().T + 1
        assert (error <= off * size).all(), (error / size).max()


@needs_rounding
@pytest.mark.parametrize("kind", KINDS)
def test_a_rounded_row_is_the_same_to_the_bit_whatever_rows_and_threads_are_beside_it(kind: str) -> None:
    torch.manual_seed(1)
    product = Products([Source(200)], [Sum(PackedMatrix(weight_of(kind, 300, 200)), 0)])
    x = torch.randn(300, 200)
    [together] = product(x, rounded=True)
    for row in (0, 7, 8, 255, 256, 299):
        assert torch.equal(product(x[row : row + 1], rounded=True)[0][0], together[row])
    assert torch.equal(product(x[:101], rounded=True)[0], together[:101])


def test_rows_are_not_rounded_where_that_is_not_faster(level: int) -> None:
    found = library()
    assert found is not None
    torch.manual_seed(2)
    product, x = Products([Source(50)], [Sum(PackedMatrix(torch.randn(20, 50)), 0)]), torch.randn(4, 50)
    assert torch.equal(product(x, rounded=True)[0], product(x)[0]) != bool(found.roslin_rounds())


@pytest.mark.parametrize("kind", ["int8", "fp8", "int4-64", "float32"])
@pytest.mark.parametrize("activation", [None, "gelu", "gelu_new", "silu"])
def test_norms_activations_and_the_residual_are_applied(level: int, kind: str, activation: str | None) -> None:
    torch.manual_seed(2)
    one, two, back, other = (weight_of(kind, *shape) for shape in ((50, 96), (70, 96), (96, 50), (96, 70)))
    gain, shift, bias = torch.rand(96) + 0.5, torch.randn(96), torch.randn(70)
    x = torch.randn(5, 96) + 3
    first = Products(
        [Source(96, "layer", 1e-5, gain, shift), Source(96, "rms", 1e-6)],
        [Sum(PackedMatrix(one), 0), Sum(PackedMatrix(two), 1, bias, activation)],
    )
    last = Products([Source(50), Source(70)], [Sum(PackedMatrix(back), 0, None, None, PackedMatrix(other), 1)])
    a, b = first(x, x)
    exact = x.double()
    normed = F.layer_norm(exact, [96], gain.double(), shift.double(), 1e-5)
    rooted = F.linear(F.rms_norm(exact, [96], None, 1e-6), plain(two), bias.double())
    functions = {
        None: lambda y: y,
        "gelu": F.gelu,
        "gelu_new": lambda y: F.gelu(y, approximate="tanh"),
        "silu": F.silu,
    }
    close(a, F.linear(normed, plain(one)))
    close(b, functions[activation](rooted))
    [found] = last(a, b, residual=x)
    close(found, exact + F.linear(a.double(), plain(back)) + F.linear(b.double(), plain(other)))


@pytest.mark.parametrize("interleaved", [False, True])
def test_heads_turn_and_gates_are_applied(level: int, interleaved: bool) -> None:
    torch.manual_seed(3)
    weight = torch.randn(3 * 24, 40)
    product = Products([Source(40, gate="silu")], [Sum(PackedMatrix(weight), 0)], Turning(2, 24, 10, interleaved))
    x, tables = torch.randn(4, 80), torch.randn(4, 2, 10)
    [found] = product(x, turns=(tables[:, 0], tables[:, 1]))
    gated = F.silu(x[:, :40].double()) * x[:, 40:].double()
    heads = F.linear(gated, weight.double()).view(4, 3, 24)
    turning = heads[:, :2, :10].clone()
    pairs = turning.view(4, 2, 5, 2) if interleaved else turning.view(4, 2, 2, 5)
    flipped = pairs.flip(-1 if interleaved else -2).reshape(4, 2, 10)
    cos, sin = tables.double().unsqueeze(2).unbind(1)
    heads[:, :2, :10] = turning * cos + flipped * sin
    close(found, heads.flatten(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rounded", [False, True])
def test_numbers_that_are_none_stay_so(level: int, kind: str, bad: float, rounded: bool) -> None:
    product = Products([Source(70)], [Sum(PackedMatrix(weight_of(kind, 20, 70)), 0)])
    x = torch.ones(2, 70)
    x[1, 69] = bad
    [found] = product(x, rounded=rounded)
    assert found[0].isfinite().all()
    assert not found[1].isfinite().any()


def test_large_pages_are_asked_for_within_the_memory_given() -> None:
    found = library()
    assert found is not None
    memory = torch.zeros(10_000, dtype=torch.uint8)
    found.roslin_large_pages(ctypes.c_void_p(memory.data_ptr()), ctypes.c_int64(10_000))
    assert not memory.any()


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize(("rows", "width"), [(0, 40), (1, 40), (300, 200)])
def test_rows_are_normed_by_themselves(level: int, norm: str, rows: int, width: int) -> None:
    torch.manual_seed(width)
    gain, shift = torch.randn(width), torch.randn(width) if norm == "layer" else None
    x = 3 * torch.randn(rows, width + 5)[:, :width] + 1
    found = Preparation(Source(width, norm, 1e-5, gain, shift))(x)
    exact = x.double()
    if shift is not None:
        expected = F.layer_norm(exact, (width,), gain.double(), shift.double(), 1e-5)
    else:
        expected = F.rms_norm(exact, (width,), gain.double(), 1e-5)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_every_number_in_fp8_is_read_as_it_is(level: int) -> None:
    codes = torch.arange(256, dtype=torch.uint8).expand(20, 256).clone()
    codes[:19, [0x7F, 0xFF]] = 0  # which stand for none, and are left to the last row
    numbers = codes.view(torch.float8_e4m3fn)
    product = Products(
        [Source(256)], [Sum(PackedMatrix(QuantisedWeight(numbers, torch.full((20,), 0.5), (20, 256))), 0)]
    )
    for rounded in (False, True):
        [found] = product(torch.eye(256), rounded=rounded)
        assert torch.equal(found[:, :19], 0.5 * numbers[:19].float().t())
        assert found[:, 19].isnan().all()
