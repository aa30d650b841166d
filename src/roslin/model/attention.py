"""Attention over a packed stream, and batches with padding run as one."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roslin.model.decoder import Decoder

VARLEN_MODULE = "torch.nn.attention.varlen"  # torch 2.9 lacks it
HALF = (torch.float16, torch.bfloat16)


class Attend(Protocol):
    """Who sees whom in one pass: which sequences the flat stream of tokens is made of."""

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What each token gathers, [N, H, K], positions being turned in already."""
        ...

    def reach(self, positions_N: Tensor) -> Tensor:
        """How long each token's sequence is as of this pass, [N]."""
        ...


class PackedAttention:
    """Causal attention within each run of a packed stream, and none across runs.

    `lengths` are the runs' lengths, which sum to N; `window` is how far back a token sees. Scores are taken in fp32
    whatever the dtype of q and k, so that they cannot overflow (GPT-J and GPT-NeoX in fp16 need it): torch's fused
    kernels do so.
    """

    def __init__(self, lengths: Sequence[int], window: int | None = None) -> None:
        self.lengths = [length for length in lengths if length]
        self._longest = max(self.lengths, default=0)
        self._window = window if window is not None and window < self._longest else None
        self._starts: Tensor | None = None
        self._tiles: dict[int, Tensor] = {}

    @property
    def window(self) -> int | None:
        """How far back a token sees, where that is less than the longest run."""
        return self._window

    def tiles(self, size: int, device: torch.device) -> Tensor:
        """The stream cut into tiles of at most `size` tokens of one run: their first token, their run's first and end.

        [tiles, 3], int32.
        """
        if size not in self._tiles:
            ends = torch.tensor(self.lengths).cumsum(0).tolist()
            table = [
                (first, end - length, end)
                for length, end in zip(self.lengths, ends, strict=True)
                for first in range(end - length, end, size)
            ]
            self._tiles[size] = torch.tensor(table, dtype=torch.int32).to(device)
        return self._tiles[size]

    def __call__(self, layer: int, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        """What each token gathers from its run, [N, H, K]."""
        if len(self.lengths) > 1 and _one_kernel_takes(q_NHK, self._window):
            return self._by_one_kernel(q_NHK, k_NGK, v_NGK)
        qkv = (q_NHK, k_NGK, v_NGK)
        if len(set(self.lengths)) == 1:
            batch = (len(self.lengths), self._longest)
            q, k, v = (x.reshape(*batch, *x.shape[1:]) for x in qkv)
            return causal(q, k, v, self._window).flatten(0, 1)
        runs = zip(*(torch.split(x, self.lengths) for x in qkv), strict=True)
        outs = [causal(q[None], k[None], v[None], self._window)[0] for q, k, v in runs]
        return torch.cat(outs) if outs else q_NHK

    def reach(self, positions_N: Tensor) -> Tensor:
        """Each run's own length."""
        lengths = torch.tensor(self.lengths, device=positions_N.device)
        return lengths.repeat_interleave(lengths)

    def _by_one_kernel(self, q_NHK: Tensor, k_NGK: Tensor, v_NGK: Tensor) -> Tensor:
        attention, knows = _varlen_attention()
        if self._starts is None:
            ends = torch.tensor([0, *self.lengths]).cumsum(0)
            self._starts = ends.to(q_NHK.device, torch.int32)
        how: dict[str, Any] = {"window_size": (-1 if self._window is None else self._window - 1, 0)}
        if "is_causal" in knows:
            how = {"is_causal": True} | (how if self._window is not None else {})
        group = q_NHK.shape[1] // k_NGK.shape[1]
        if group > 1 and "enable_gqa" in knows:
            how["enable_gqa"] = True
        elif group > 1:
            k_NGK, v_NGK = k_NGK.repeat_interleave(group, 1), v_NGK.repeat_interleave(group, 1)
        out_NHK: Tensor = attention(
            q_NHK, k_NGK, v_NGK, self._starts, self._starts, self._longest, self._longest, **how
        )
        return out_NHK


def causal(q_BTHK: Tensor, k_BTGK: Tensor, v_BTGK: Tensor, window: int | None = None) -> Tensor:
    """Causal attention over whole sequences, [B, T, H, K]; each of G keys serves H / G queries."""
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BTGK, v_BTGK))
    band = None if window is None or window >= q.shape[2] else _band(q.shape[2], window, q.device)
    grouped = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=band, is_causal=band is None, enable_gqa=grouped)
    return out.transpose(1, 2)


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """Which places each of `length` tokens sees, [T, T]: itself and the `window` - 1 before it."""
    places = torch.arange(length, device=device)
    back = places[:, None] - places
    return (back >= 0) & (back < window)


def _one_kernel_takes(q_NHK: Tensor, window: int | None) -> bool:
    """Whether torch's kernel for runs of unlike lengths is there and takes these."""
    return _is_on_a_gpu_for_it(q_NHK) and (window is None or "window_size" in _varlen_attention()[1])


def _is_on_a_gpu_for_it(q_NHK: Tensor) -> bool:
    """FlashAttention's own conditions."""
    if not q_NHK.is_cuda or q_NHK.dtype not in HALF or find_spec(VARLEN_MODULE) is None:
        return False
    head_dim = q_NHK.shape[-1]
    return head_dim % 8 == 0 and head_dim <= 256 and torch.cuda.get_device_capability(q_NHK.device) >= (8, 0)


@cache
def _varlen_attention() -> tuple[Callable[..., Any], frozenset[str]]:
    """That kernel, and the names that this release of torch has for what it can be asked: 2.11 and 2.13 differ."""
    attention = import_module(VARLEN_MODULE).varlen_attn
    return attention, frozenset(inspect.signature(attention).parameters)


def packed_positions(lengths: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Positions that start at 0 in every run, [N]."""
    return torch.cat([torch.arange(0), *(torch.arange(length) for length in lengths)]).to(device)


def padded_logits(decoder: Decoder, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The logits of a padded batch, [B, T, V]; the padding (mask 0, left or right) gets zeros."""
    kept_BT = mask_BT.bool()
    lengths: list[int] = kept_BT.sum(1).tolist()
    positions_N = packed_positions(lengths, ids_BT.device)
    logits_NV: Tensor = decoder(ids_BT[kept_BT], positions_N, PackedAttention(lengths, decoder.config.window))
    logits_BTV = logits_NV.new_zeros(*ids_BT.shape, logits_NV.shape[-1])
    return logits_BTV.masked_scatter(kept_BT[..., None], logits_NV)
