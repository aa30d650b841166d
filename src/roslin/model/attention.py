"""Attention over a packed stream, and batches with padding run as one."""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from roslin.model.decoder import Decoder

VARLEN_MODULE = "torch.nn.attention.varlen"  # torch 2.9 lacks it
HALF = (torch.float16, torch.bfloat16)


class PackedAttention:
    """Causal attention within each run of a packed stream, and none across runs.

    `lengths` are the runs' lengths, which sum to N. Scores are taken in fp32 whatever the dtype of q and k, so that
    they cannot overflow (GPT-J and GPT-NeoX in fp16 need it): torch's fused kernels do so.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = [length for length in lengths if length]
        self._longest = max(self.lengths, default=0)
        self._starts: Tensor | None = None

    def __call__(self, layer: int, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor) -> Tensor:
        """What each token gathers from its run, [N, H, K]."""
        if len(self.lengths) > 1 and _one_kernel_takes(q_NHK):
            return self._by_one_kernel(q_NHK, k_NHK, v_NHK)
        if len(set(self.lengths)) == 1:
            batch = (len(self.lengths), self._longest, *q_NHK.shape[1:])
            return _causal(q_NHK.view(batch), k_NHK.view(batch), v_NHK.view(batch)).flatten(0, 1)
        runs = zip(*(torch.split(x, self.lengths) for x in (q_NHK, k_NHK, v_NHK)), strict=True)
        return torch.cat([_causal(*(x[None] for x in run))[0] for run in runs]) if self.lengths else v_NHK

    def _by_one_kernel(self, q_NHK: Tensor, k_NHK: Tensor, v_NHK: Tensor) -> Tensor:
        attention, causal = _varlen_attention()
        if self._starts is None:
            ends = torch.tensor([0, *self.lengths]).cumsum(0)
            self._starts = ends.to(q_NHK.device, torch.int32)
        out_NHK: Tensor = attention(
            q_NHK, k_NHK, v_NHK, self._starts, self._starts, self._longest, self._longest, **causal
        )
        return out_NHK


def _causal(q_BTHK: Tensor, k_BTHK: Tensor, v_BTHK: Tensor) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q_BTHK, k_BTHK, v_BTHK))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def _one_kernel_takes(q_NHK: Tensor) -> bool:
    """Whether torch's kernel for runs of unlike lengths is there and takes these (FlashAttention's own conditions)."""
    if not q_NHK.is_cuda or q_NHK.dtype not in HALF or find_spec(VARLEN_MODULE) is None:
        return False
    head_dim = q_NHK.shape[-1]
    return head_dim % 8 == 0 and head_dim <= 256 and torch.cuda.get_device_capability(q_NHK.device) >= (8, 0)


@cache
def _varlen_attention() -> tuple[Callable[..., Any], dict[str, Any]]:
    """That kernel, and how this release of torch asks it for causal attention: torch 2.11 and 2.13 differ."""
    attention = import_module(VARLEN_MODULE).varlen_attn
    named = "is_causal" in inspect.signature(attention).parameters
    return attention, {"is_causal": True} if named else {"window_size": (-1, 0)}


def packed_positions(lengths: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Positions that start at 0 in every run, [N]."""
    return torch.cat([torch.arange(0), *(torch.arange(length) for length in lengths)]).to(device)


def padded_logits(decoder: Decoder, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The logits of a padded batch, [B, T, V]; the padding (mask 0, left or right) gets zeros."""
    kept_BT = mask_BT.bool()
    lengths: list[int] = kept_BT.sum(1).tolist()
    positions_N = packed_positions(lengths, ids_BT.device)
    logits_NV: Tensor = decoder(ids_BT[kept_BT], positions_N, PackedAttention(lengths))
    logits_BTV = logits_NV.new_zeros(*ids_BT.shape, logits_NV.shape[-1])
    return logits_BTV.masked_scatter(kept_BT[..., None], logits_NV)
