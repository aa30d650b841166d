"""Every Triton kernel, in Triton's interpreter, against the same function in plain torch."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from roslin.model.attention import PackedAttention
from roslin.model.rotary import Turns
from roslin.tune.passes import kernels, plain
from uninterpreted import lines_of


def close(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype = torch.float32) -> None:
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def affine(width: int, dtype: torch.dtype, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return 1 + draw(width, dtype=dtype, seed=seed) / 4, draw(width, dtype=dtype, seed=seed + 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (5, 48), (300, 80)])
@pytest.mark.parametrize("count", [1, 2])
def test_norms(rows: int, width: int, count: int, dtype: torch.dtype) -> None:
    x, affines = draw(rows, width, dtype=dtype), (affine(width, dtype, 1), affine(width, dtype, 5))[:count]
    (ours, mine), (theirs, its) = kernels.norms(x, affines, 1e-5), plain.norms(x, affines, 1e-5)
    for one, other in zip([*ours, mine], [*theirs, its], strict=True):
        close(one, other, one.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (5, 48), pytest.param(300, 80, marks=pytest.mark.full)])
@pytest.mark.parametrize(("count", "readers"), [(1, 1), (1, 2), (2, 2)])
def test_norms_backward(rows: int, width: int, count: int, readers: int, dtype: torch.dtype) -> None:
    x, onto = draw(rows, width, dtype=dtype), draw(rows, width, dtype=dtype, seed=9)
    affines = (affine(width, dtype, 1), affine(width, dtype, 5))[:count]
    grads = [draw(rows, width, dtype=dtype, seed=20 + i) for i in range(readers)]
    _, statistics = plain.norms(x, affines, 1e-5)
    ours, of_ours = kernels.norms_backward(x, statistics, grads, affines, onto)
    theirs, of_theirs = plain.norms_backward(x, statistics, grads, affines, onto)
    close(ours, theirs, dtype)
    for pair in zip(of_ours, of_theirs, strict=True):
        for mine, its in zip(*pair, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-3)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "silu"])
@pytest.mark.parametrize(("rows", "width"), [(1, 16), (131, 300)])
def test_activation_and_its_backward(rows: int, width: int, activation: str) -> None:
    up, grad = 3 * draw(rows, width), draw(rows, width, seed=1)
    close(kernels.activate(up, activation), plain.activate(up, activation))
    theirs = plain.activate_backward(up, grad.clone(), activation)
    ours = kernels.activate_backward(up, grad.clone(), activation)
    for mine, its in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


def test_column_sums_are_in_fp32() -> None:
    x = draw(300, 270, dtype=torch.bfloat16)
    torch.testing.assert_close(kernels.column_sums(x), x.double().sum(0).float(), rtol=1e-4, atol=1e-4)


def turns(rows: int, dims: int, turning: int, interleaved: bool) -> Turns:
    angle = 3 * draw(rows, dims // 2, seed=7)
    axis = -1 if interleaved else 1
    pair = (dims // 2, 2) if interleaved else (2, dims // 2)
    cos = torch.stack([angle.cos(), angle.cos()], axis)
    sin = torch.stack([-angle.sin(), angle.sin()], axis)
    return Turns(cos.view(rows, 1, *pair), sin.view(rows, 1, *pair), interleaved, turning)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("head_dim", "dims"), [(64, 16), (80, 20), (96, 24), (128, 32), (12, 12)])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
def test_turning_and_turning_back(head_dim: int, dims: int, heads: int, groups: int, interleaved: bool) -> None:
    rows = 131
    how = turns(rows, dims, heads + groups, interleaved)
    qkv = draw(rows, heads + 2 * groups, head_dim)
    close(kernels.turn(qkv.clone(), how), plain.turn(qkv.clone(), how))
    q, k, v = qkv.split_with_sizes((heads, groups, groups), 1)
    for mine, its in zip(kernels.turn_back(q, k, v, how), plain.turn_back(q, k, v, how), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_add(dtype: torch.dtype) -> None:
    """The interpreter cuts bf16 numbers off where a GPU rounds them, hence the wider bound there."""
    x, y, z = (draw(37, 100, dtype=dtype, seed=seed) for seed in range(3))
    close(kernels.add(x, y, z), plain.add(x, y, z), dtype)


@pytest.mark.parametrize("width", [5, 128, 8192, 20_001])
def test_cross_entropy(width: int) -> None:
    logits, target = 5 * draw(3, width), torch.tensor([0, width - 1, width // 2])
    logits[1] -= 1e4  # far from zero, where a plain sum of exponentials would vanish
    mine, its = logits.clone(), logits.clone()
    ours, theirs = kernels.cross_entropy(mine, target, 0.25), plain.cross_entropy(its, target, 0.25)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-3)
    torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-5)
    assert float(theirs[0]) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits[:1].double(), target[:1])), rel=1e-5
    )


RUNS = [70, 1, 131, 16, 64]


@pytest.mark.parametrize("head_dim", [16, 64, 80, 96, 128, 256, 12])
@pytest.mark.parametrize("interleaved", [False, True])
def test_attention_and_its_backward(head_dim: int, interleaved: bool) -> None:
    """Runs shorter, longer and as long as a tile; against torch's attention on each run by itself."""
    heads, dims = 2, head_dim // 4 * 2
    how = turns(sum(RUNS), dims, 2 * heads, interleaved)
    qkv = 2 * draw(sum(RUNS), 3 * heads, head_dim)
    grad = draw(sum(RUNS), heads, head_dim, seed=3)
    ours = kernels.attend(qkv.clone(), PackedAttention(RUNS), 0, (heads,) * 3)
    theirs = plain.attend(qkv.clone(), PackedAttention(RUNS), 0, (heads,) * 3)
    assert isinstance(ours, kernels.Attended)
    close(ours.gathered_NHK, theirs.gathered_NHK.detach())
    for mine, its in zip(
        kernels.attend_backward(ours, grad, how), plain.attend_backward(theirs, grad, how), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("heads", "window"), [((4, 2, 2), None), ((2, 2, 2), 9)])
def test_windows_and_grouped_heads_go_to_torchs_attention(heads: tuple[int, int, int], window: int | None) -> None:
    how = turns(sum(RUNS), 8, heads[0] + heads[1], False)
    qkv, grad = draw(sum(RUNS), sum(heads), 16), draw(sum(RUNS), heads[0], 16, seed=3)
    ours, theirs = (work.attend(qkv.clone(), PackedAttention(RUNS, window), 0, heads) for work in (kernels, plain))
    close(ours.gathered_NHK.detach(), theirs.gathered_NHK.detach())
    for mine, its in zip(
        kernels.attend_backward(ours, grad, how), plain.attend_backward(theirs, grad, how), strict=True
    ):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("place", [3, 8197])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_one_logit_of_no_number_makes_its_rows_loss_none(wrong: float, place: int) -> None:
    logits = draw(2, 8200)
    logits[1, place] = wrong
    for work in (kernels, plain):
        losses = work.cross_entropy(logits.clone(), torch.tensor([1, 1]), 1.0)
        assert losses.isfinite().tolist() == [True, False]


SHARED_MEMORY = {"T4": (7, 64), "A100": (8, 163), "L4": (8, 99), "H100": (9, 227)}
"""Compute capability, and KiB that a program can have."""


@pytest.mark.parametrize(
    ("gpu", "head_dim", "itemsize", "fits"),
    [
        ("H100", 256, 2, True),
        ("A100", 256, 2, False),
        ("A100", 128, 2, True),
        ("L4", 80, 2, True),
        ("L4", 128, 4, False),
        ("T4", 64, 4, False),
    ],
)
def test_heads_that_are_too_wide_for_a_gpu_go_to_torch(
    monkeypatch: pytest.MonkeyPatch, gpu: str, head_dim: int, itemsize: int, fits: bool
) -> None:
    major, kib = SHARED_MEMORY[gpu]
    found = SimpleNamespace(major=major, shared_memory_per_block_optin=kib * 1024)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    kernels.has_room.cache_clear()
    assert kernels.has_room(torch.device("cuda"), head_dim, itemsize) is fits
    kernels.has_room.cache_clear()


@pytest.mark.full
@pytest.mark.parametrize("capability", [80, 90])
def test_shared_memory_that_attention_is_reckoned_to_need(capability: int) -> None:
    """Compiled, as no GPU is needed for, its kernels need no more."""
    printed = lines_of(Path(__file__).with_name("shared_memory.py"), str(capability))
    needed = [int(word) for line in printed for word in line.split()]
    tiles = kernels.ATTENTION_TILES_ON_HOPPER if capability >= 90 else kernels.ATTENTION_TILES
    reckoned = tiles * kernels.ATTENTION_TILE * 128 * 2
    assert len(needed) == 3
    assert 0.9 * reckoned < max(needed) <= reckoned
