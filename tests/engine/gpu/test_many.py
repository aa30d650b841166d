"""Products of many tokens in fp8: torch's own product on a CPU, and the kernel that rounds, in the interpreter."""

from importlib.metadata import version

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("triton")

from roslin.engine.gpu import many
from roslin.engine.gpu.decoder import GpuDecoder
from roslin.engine.gpu.launch import Launch, Launches
from roslin.engine.gpu.matrix import Matrix, beside, in_fp8, stacked
from roslin.engine.gpu.products import NormedProduct, ResidualProduct
from tiny_decoders import plain_logits, tiny_decoder

FP8 = torch.float8_e4m3fn
TOP = 448.0
multiplies = pytest.mark.skipif(
    not torch.cuda.is_available() and int(version("torch").split(".")[1]) < 13,
    reason="torch before 2.13 does not multiply in fp8 with scales of rows on a CPU",
)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "has_fp8_cores", lambda device: True)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16().to(DEVICE)


def rounded(x_NI: Tensor) -> Tensor:
    """What vectors are once they have been in fp8, in fp32."""
    scales_N1 = x_NI.float().abs().amax(1, keepdim=True) / TOP
    return (x_NI.float() / scales_N1).to(FP8).float() * scales_N1


def held(matrix: Matrix) -> Tensor:
    """What a matrix of one part stands for, in fp32."""
    assert matrix.scale is not None
    return matrix.weight.float() * matrix.scale[0][:, None]


def close(found: Tensor, expected: Tensor) -> None:
    """To bf16's rounding of the result, and of a part of it."""
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    assert float((found.float() - expected).norm() / expected.norm()) < 2**-8


@pytest.mark.parametrize("width", [16, 80, 300])
def test_each_vector_is_rounded_by_a_scale_of_its_own(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of fewer numbers than it has; of vectors that lie apart, of zeros, of tiny and of huge ones."""
    monkeypatch.setattr(many, "FP8_BLOCK", 64)
    wide_NI = draw(6, width + 24) * torch.tensor([1.0, 1e-6, 3e30, 1e-38, 5.0, 0.0], device=DEVICE).bfloat16()[:, None]
    x_NI = wide_NI[:, 8 : 8 + width]
    codes_NI, scales_N1 = many.to_fp8(x_NI)
    assert not codes_NI[5].float().any() and scales_N1.isfinite().all()
    torch.testing.assert_close(codes_NI[:3].float() * scales_N1[:3], rounded(x_NI[:3]), rtol=1e-5, atol=0.0)
    assert (codes_NI[[0, 1, 2, 4]].float().abs().amax(1) == TOP).all()


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_spoils_its_own_vector(wrong: float) -> None:
    x_NI = draw(3, 32)
    x_NI[1, 5] = wrong
    codes_NI, scales_N1 = many.to_fp8(x_NI)
    assert (codes_NI.float() * scales_N1).isnan().any(1).tolist() == [False, True, False]
    assert scales_N1.isnan()[:, 0].tolist() == [False, True, False]


@multiplies
@pytest.mark.usefixtures("cores")
def test_products_are_those_of_the_rounded_factors() -> None:
    """Before and behind a norm's split, with a bias, and into the stream from two sources with scales of their own."""
    config = tiny_decoder("gpt_neox", width=64).config
    parts = [in_fp8(Matrix(draw(rows, 64, seed=rows) / 8, None, (64,))) for rows in (48, 32)]
    bias, x = draw(80, seed=5), draw(20, 64, seed=6)
    launches = Launches()
    product = NormedProduct("first", launches, None, stacked(parts), bias, 48, config)
    z = torch.full((20, 9 + 32), 3.0, device=DEVICE).bfloat16()
    close(product(x, z[:, 9:]), rounded(x) @ held(parts[0]).T + bias[:48].float())
    assert (z[:, :9] == 3).all()
    close(z[:, 9:], F.gelu(rounded(x) @ held(parts[1]).T + bias[48:].float()))

    parts = [in_fp8(Matrix(draw(32, width, seed=width) / width**0.5, None, (width,))) for width in (64, 128)]
    last = ResidualProduct("last", launches, beside(parts), bias[:32])
    z, x = draw(20, 192, seed=2), draw(20, 32, seed=3)
    sources = zip(z.split((64, 128), 1), parts, strict=True)
    expected = x.float() + bias[:32].float() + sum(rounded(source) @ held(part).T for source, part in sources)
    last(z, x)
    close(x, expected)


@multiplies
@pytest.mark.usefixtures("cores")
def test_a_vector_does_not_depend_on_those_beside_it() -> None:
    matrix = in_fp8(Matrix(draw(32, 64), None, (64,)))
    x = draw(40, 64, seed=1)
    every = many.many_product(matrix, torch.bfloat16)(x, slice(0, 32), None)
    x[20:] *= 100
    assert torch.equal(many.many_product(matrix, torch.bfloat16)(x, slice(0, 32), None)[:20], every[:20])


@pytest.mark.usefixtures("cores")
def test_what_fp8_is_not_for_is_multiplied_as_plain_numbers() -> None:
    """Sizes that are no multiples of 16, other dtypes, other forms."""
    fp8 = in_fp8(Matrix(draw(32, 64), None, (64,)))
    assert many.in_fp8(fp8, torch.bfloat16) and many.in_fp8(fp8, torch.bfloat16, 16)
    assert not many.in_fp8(fp8, torch.float32) and not many.in_fp8(fp8, torch.bfloat16, 8)
    assert not many.in_fp8(in_fp8(Matrix(draw(24, 64), None, (64,))), torch.bfloat16)
    assert not many.in_fp8(in_fp8(Matrix(draw(32, 72), None, (72,))), torch.bfloat16)
    assert not many.in_fp8(Matrix(draw(32, 64), None, (64,)), torch.bfloat16)
    x = draw(20, 64, seed=3)
    found = many.many_product(in_fp8(Matrix(draw(24, 64), None, (64,))), torch.float32)(x.float(), slice(0, 24), None)
    expected = x.float() @ held(in_fp8(Matrix(draw(24, 64), None, (64,)))).T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


@multiplies
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_a_prompts_logits_are_off_by_little_more_than_fp8_weights_make_them(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both factors of each product are rounded alike: by √2 times as much as with one of them."""
    ids = [5, 9, 30, 11] * 5
    exact = plain_logits(tiny_decoder(family), ids)
    with torch.no_grad():
        ours = GpuDecoder(tiny_decoder(family).bfloat16().to(DEVICE), in_fp8)
    ours.launches.update(dict.fromkeys(ours.launches, Launch(64, 64)))
    off = []
    for cores in (False, True):
        monkeypatch.setattr(many, "has_fp8_cores", lambda device, cores=cores: cores)
        off.append(float((plain_logits(ours, ids).cpu() - exact).norm() / exact.norm()))
    assert 0.01 < off[0] < off[1] < 2 * off[0]
