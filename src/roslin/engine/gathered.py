"""Paged attention in plain torch: what every kernel must equal, and what runs where there is none."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cache import as_kept, raw
from roslin.engine.queries import Layer, Queries
from roslin.model.attention import causal
from roslin.model.fp8 import FP8


class GatheredAttention:
    """Copies together what a sequence has in its blocks, and lets torch's attention read that."""

    chunk = 1

    def write(self, layer: Layer, k_NGK: Tensor, v_NGK: Tensor, places_N: Tensor) -> None:
        """Keep keys and values at these places."""
        blocks_N, offsets_N = places_N // BLOCK, places_N % BLOCK
        for kept, x_NGK in zip(layer, (k_NGK, v_NGK), strict=True):
            raw(kept)[blocks_N, :, offsets_N] = raw(as_kept(x_NGK, kept.dtype))

    def attend(self, layer: Layer, q_MHK: Tensor, queries: Queries) -> Tensor:
        """What each token gathers, [M, H, K]."""
        tables_MW = queries.tables_SW[queries.slots_M.long(), : blocks_for(queries.longest)].long()
        k_MGTK, v_MGTK = (_gather(kept, tables_MW, q_MHK.dtype) for kept in layer)
        # The queries that share a key stand as if they were several tokens of one head.
        q_MGSK = q_MHK.to(k_MGTK.dtype).reshape(len(q_MHK), k_MGTK.shape[1], -1, q_MHK.shape[-1])
        out_MGSK = F.scaled_dot_product_attention(q_MGSK, k_MGTK, v_MGTK, attn_mask=_seen(queries, k_MGTK.shape[2]))
        return out_MGSK.flatten(1, 2).to(q_MHK.dtype)

    def attend_last(self, q_CHK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """What a sequence's last C tokens gather, [C, H, K], of all T up to themselves."""
        if len(q_CHK) == len(k_TGK):
            return causal(q_CHK[None], k_TGK[None], v_TGK[None], window)[0]
        q, k, v = (x.transpose(0, 1)[None] for x in (q_CHK, k_TGK, v_TGK))
        seen_CT = _seen_by_last(len(k_TGK), len(q_CHK), window, q_CHK.device)
        out = F.scaled_dot_product_attention(q, k, v, seen_CT, enable_gqa=q.shape[1] != k.shape[1])
        return out[0].transpose(0, 1)


@lru_cache(maxsize=2)  # every layer of a pass asks for the same
def _seen_by_last(length: int, count: int, window: int | None, device: torch.device) -> Tensor:
    """Which places each of a sequence's last tokens sees, [C, T]."""
    back_CT = torch.arange(length - count, length, device=device)[:, None] - torch.arange(length, device=device)
    return back_CT >= 0 if window is None else (back_CT >= 0) & (back_CT < window)


def _gather(kept: Tensor, tables_MW: Tensor, dtype: torch.dtype) -> Tensor:
    """The blocks of each table one behind the other, [M, G, W * BLOCK, K]; fp8 becomes `dtype`.

    On a CPU in float32: torch's attention of one query over bfloat16 keys is up to five times slower there.
    """
    groups = kept.shape[1]
    rows_MGW = tables_MW[:, None] * groups + torch.arange(groups, device=kept.device)[:, None]
    flat = raw(kept).flatten(0, 1).flatten(1).index_select(0, rows_MGW.flatten())
    gathered = flat.view(kept.dtype).view(*rows_MGW.shape[:2], -1, kept.shape[-1])
    if kept.device.type == "cpu":
        return gathered.float()
    return gathered.to(dtype) if kept.dtype == FP8 else gathered


def _seen(queries: Queries, length: int) -> Tensor:
    """Which places each token sees, [M, 1, 1, T]."""
    places_T = torch.arange(length, device=queries.lengths_M.device)
    seen_MT = places_T < queries.lengths_M[:, None]
    if queries.window is not None:
        seen_MT &= places_T >= queries.lengths_M[:, None] - queries.window
    return seen_MT[:, None, None]
