"""The GPU's products in Triton's interpreter against plain torch in float64: every form of matrix, one row and more."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.engine.gpu.launch import Launch, Launches
from roslin.engine.gpu.many import plain_numbers
from roslin.engine.gpu.matrix import Matrix, as_it_is, beside, in_fp8, in_int4, in_int8, matrix_of, stacked
from roslin.engine.gpu.products import NormedProduct, Norms, ResidualProduct
from roslin.model import ModelConfig
from roslin.model.quantised import quantise_4
from roslin.model.quantised_linear import QuantisedLinear
from tiny_decoders import tiny_decoder

HOLDS = {"plain": as_it_is, "int8": in_int8, "fp8": in_fp8, "int4": in_int4}
ROWS = [1, 2, 5, 17]
KINDS = [(rows, torch.float32) for rows in ROWS]
# The interpreter cannot multiply matrices in bfloat16, as a few rows are.
KINDS += [(rows, torch.bfloat16 if rows in {1, 17} else torch.float16) for rows in ROWS]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def config_of(width: int, family: str = "gpt_neox") -> ModelConfig:
    return tiny_decoder(family, width=width).config


def matrix(rows: int, columns: int, seed: int, dtype: torch.dtype = torch.float32) -> Matrix:
    return Matrix(draw(rows, columns, seed=seed, dtype=dtype) / columns**0.5, None, (columns,))


def numbers(part: Matrix) -> Tensor:
    """What a matrix of one part stands for, exactly."""
    if part.group:
        return in_4_bits(part)
    weight = part.weight.double()
    return weight if part.scale is None else weight * part.scale[0].double()[:, None]


def in_4_bits(part: Matrix) -> Tensor:
    """The same of words, column by column."""
    assert part.scale is not None
    columns = []
    for column in range(part.widths[0]):
        group, within = divmod(column, part.group)
        code, word = divmod(within, part.group // 8)
        words, pairs = part.weight[:, group * part.group // 8 + word], part.scale[:, group]
        scale, shift = (half.short().view(torch.float16).double() for half in (pairs, pairs >> 16))
        columns.append((words >> 4 * code & 15) * scale + shift)
    return torch.stack(columns, 1)


def norm_of(config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    norm = kind(config.width, eps=config.norm_eps)
    for number, parameter in enumerate(norm.parameters()):
        parameter.data = 1 - number + draw(config.width, seed=seed + number) / 4
    return norm.to(dtype)


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    if found.dtype != torch.float32:  # of which what is between two kernels may be, too
        error = (found.double() - expected).norm() / expected.norm()
        assert error < (6e-3 if len(found) == 1 else 1.5e-2)
    else:
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=3e-5)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("form", HOLDS)
@pytest.mark.parametrize("norms", [1, 2])
@pytest.mark.parametrize(("width", "split", "active"), [(64, 48, 32), (100, 30, 37), (80, 33, 0)])
def test_a_product_behind_norms(rows: int, form: str, norms: int, width: int, split: int, active: int) -> None:
    """Odd widths, and blocks of rows and columns that nothing divides by; where both norms go, and the activation."""
    config, launches = config_of(width), Launches()
    each = [norm_of(config, 3 * n) for n in range(norms)]
    parts = [HOLDS[form](matrix(count, width, 7 + count)) for count in (split, active) if count]
    bias = draw(split + active, seed=5)
    product = NormedProduct("first", launches, Norms(config, each), stacked(parts), bias, split, config)
    launches["first"] = Launch(16, 32)
    x, z = draw(rows, width, seed=6), torch.full((rows, 9 + active), 3.0)
    plain = product(x, z[:, 9:] if active else None)
    first, second = (norm.double()(x.double()) for norm in (each[0], each[-1]))
    close(plain, first @ numbers(parts[0]).T + bias[:split].double())
    assert (z[:, :9] == 3).all()
    if active:
        close(z[:, 9:], F.gelu(second @ numbers(parts[1]).T + bias[split:].double()))


@pytest.mark.parametrize(("rows", "dtype"), KINDS)
@pytest.mark.parametrize("form", HOLDS)
def test_a_gated_product_behind_an_rms_norm(rows: int, dtype: torch.dtype, form: str) -> None:
    config, launches = config_of(72, "llama"), Launches()
    norm, up = norm_of(config, 1, dtype), HOLDS[form](matrix(2 * 41, 72, 2, dtype))
    product = NormedProduct("up", launches, Norms(config, [norm]), up, draw(82, dtype=dtype), 0, config)
    launches["up"] = Launch(8, 32)
    x, out = draw(rows, 72, seed=6, dtype=dtype), torch.empty(rows, 41, dtype=dtype)
    product(x, out)
    gate, beside_it = (norm.double()(x.double()) @ numbers(up).T + draw(82, dtype=dtype).double()).chunk(2, 1)
    close(out, F.silu(gate) * beside_it)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "silu"])
@pytest.mark.parametrize("rows", [1, 2])
def test_activations(activation: str, rows: int) -> None:
    config, launches = tiny_decoder("gpt_neox", width=8, activation=activation).config, Launches()
    weight = Matrix(4 * torch.eye(8), None, (8,))
    product = NormedProduct("up", launches, None, weight, None, 0, config)
    x, out = draw(rows, 8), torch.empty(rows, 8)
    product(x, out)
    plain = F.silu if activation == "silu" else lambda x: F.gelu(x, approximate="tanh" if "_" in activation else "none")
    close(out, plain(4 * x.double()))


@pytest.mark.parametrize(("rows", "dtype"), KINDS)
@pytest.mark.parametrize("form", HOLDS)
@pytest.mark.parametrize(("widths", "outputs"), [((64, 128), 40), ((60, 77), 33), ((96,), 16)])
def test_a_product_into_the_residual_stream(
    rows: int, dtype: torch.dtype, form: str, widths: tuple[int, ...], outputs: int
) -> None:
    launches = Launches()
    parts = [HOLDS[form](matrix(outputs, width, width, dtype)) for width in widths]
    product = ResidualProduct("last", launches, beside(parts), draw(outputs, dtype=dtype))
    launches["last"] = Launch(16, 32)
    z, x = draw(rows, sum(widths), seed=2, dtype=dtype), draw(rows, outputs, seed=3, dtype=dtype)
    expected = x.double() + draw(outputs, dtype=dtype).double()
    for part, source in zip(parts, z.double().split(widths, 1), strict=True):
        expected = expected + source @ numbers(part).T
    product(z, x)
    close(x, expected)


def test_fp8_keeps_each_rows_largest_number_and_rows_of_zeros() -> None:
    weight = draw(5, 33)
    weight[2] = 0
    held = numbers(in_fp8(Matrix(weight, None, (33,))))
    largest = weight.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(held.gather(1, largest).float(), weight.gather(1, largest))
    # Three bits of mantissa: half a step is a sixteenth; the smallest numbers are at the end of the range.
    assert ((held - weight).abs() <= weight.abs() / 16 + weight.abs().amax(1, keepdim=True) * 2**-18).all()


@pytest.mark.parametrize("group", [32, 64, 128])
@pytest.mark.parametrize("columns", [384, 301, 20])
def test_a_matrix_in_4_bits_is_the_one_that_was_quantised(group: int, columns: int) -> None:
    """In its words, and unpacked by the kernel for many rows, alone and beside another."""
    made = [quantise_4(draw(7, columns, seed=n), group) for n in range(2)]
    parts = [matrix_of(QuantisedLinear(one)) for one in made]
    for one, part in zip(made, parts, strict=True):
        assert torch.equal(numbers(part).float(), one.dequantize())
        assert part.bits == 4 and part.bytes == 7 * -(-columns // group) * (group // 2 + 4)
    together = torch.cat([one.dequantize() for one in made], 1)
    assert torch.equal(plain_numbers(beside(parts), torch.float32), together)
    above = torch.cat([one.dequantize(torch.float16) for one in made])  # the interpreter does not round to bfloat16
    assert torch.equal(plain_numbers(stacked(parts), torch.float16), above)


@pytest.mark.parametrize("group", [32, 128])
@pytest.mark.parametrize("rows", [1, 3])
def test_groups_of_other_sizes(group: int, rows: int) -> None:
    """More than one block of words, and a last group that the columns do not fill."""
    parts = [
        matrix_of(QuantisedLinear(quantise_4(draw(24, width, seed=width) / width**0.5, group))) for width in (300, 70)
    ]
    launches = Launches()
    product = ResidualProduct("last", launches, beside(parts), None)
    launches["last"] = Launch(8, 64)
    z, x = draw(rows, 370), draw(rows, 24, seed=3)
    expected = x.double()
    for part, source in zip(parts, z.double().split((300, 70), 1), strict=True):
        expected = expected + source @ numbers(part).T
    product(z, x)
    close(x, expected)
