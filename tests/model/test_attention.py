"""How torch's kernel for runs of unlike lengths is asked, whose own place is a GPU: a plain stand-in answers here."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from roslin.model import PackedAttention, attention
from roslin.model.attention import causal

LENGTHS = [7, 12, 1, 30]


def answered(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: torch.Tensor, window: int | None) -> Any:
    assert starts.tolist() == [0, 7, 19, 20, 50]
    runs = zip(*(torch.split(x, LENGTHS) for x in (q, k, v)), strict=True)
    return torch.cat([causal(q[None], k[None], v[None], window)[0] for q, k, v in runs])


def of_2_11(
    q: Any, k: Any, v: Any, starts_q: Any, starts_k: Any, most_q: int, most_k: int, is_causal: bool = False
) -> Any:
    assert is_causal
    assert q.shape == k.shape
    return answered(q, k, v, starts_q, None)


def of_2_13(
    q: Any,
    k: Any,
    v: Any,
    starts_q: Any,
    starts_k: Any,
    most_q: int,
    most_k: int,
    *,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
) -> Any:
    back, ahead = window_size
    assert ahead == 0
    assert (most_q, most_k) == (30, 30)
    assert enable_gqa == (q.shape[1] != k.shape[1])
    return answered(q, k, v, starts_q, None if back == -1 else back + 1)


@pytest.mark.parametrize("kernel", [of_2_11, of_2_13])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("window", [None, 5])
def test_the_kernel_is_asked_for_what_the_plain_path_does(
    monkeypatch: pytest.MonkeyPatch, kernel: Callable[..., Any], kv_heads: int, window: int | None
) -> None:
    source = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(50, heads, 16, generator=source) for heads in (4, kv_heads, kv_heads))
    expected = PackedAttention(LENGTHS, window)(0, q, k, v)
    attention._varlen_attention.cache_clear()
    monkeypatch.setattr(
        attention, "import_module", lambda name: type("Module", (), {"varlen_attn": staticmethod(kernel)})
    )
    monkeypatch.setattr(attention, "_is_on_a_gpu_for_it", lambda q: True)
    found = PackedAttention(LENGTHS, window)(0, q, k, v)
    attention._varlen_attention.cache_clear()
    torch.testing.assert_close(found, expected)
