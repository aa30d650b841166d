"""A decoder for answering on a CPU: two matrix products a layer, and little else.

The family's attention and MLP stand beside each other, so their first matrices can be one, and their last ones too:
both read the same normalised vector once the norms' own weights are multiplied into the matrices behind them. That and
the absence of modules halve the time of a step of a small model (bench/cpu_decode.py), where calls cost more than
arithmetic. The matrices are stored in oneDNN's blocked layout.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.model import Attend, Block, Decoder, ModelConfig
from roslin.model.rotary import Rotary

Product = Callable[[Tensor], Tensor]
"""x_NI to x_NI · W + b."""


class FusedDecoder:
    """Equals the decoder it was made from; its weights can no longer change."""

    def __init__(self, decoder: Decoder) -> None:
        """Take `decoder` apart, layer by layer, so that its weights and the fused ones are never both whole."""
        self.config: ModelConfig = decoder.config
        self.dtype, self.device = decoder.dtype, decoder.device
        self._attention = self.config.heads * self.config.head_dim
        self._gelu = "tanh" if self.config.activation == "gelu_new" else "none"
        self._shape = (-1, 3, self.config.heads, self.config.head_dim)
        self._embedding = decoder.embedding.weight.detach()
        self._norm = decoder.norm.weight.detach(), decoder.norm.bias.detach()
        self._rotary = Rotary(self.config)
        self._layers: list[tuple[Product, Product]] = []
        for layer, block in enumerate(decoder.blocks):
            assert isinstance(block, Block)
            self._layers.append((_first(block), _last(block)))
            decoder.blocks[layer] = nn.Identity()
        self._head = _product(decoder.head.weight.detach(), _bias(decoder.head))

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend) -> Tensor:
        """The hidden states after the final norm, [N, D]."""
        width, eps, attention = [self.config.width], self.config.norm_eps, self._attention
        x_ND = F.embedding(ids_N, self._embedding)
        turns = self._rotary.turns(positions_N, self.dtype)
        for layer, (first, last) in enumerate(self._layers):
            both = first(torch.layer_norm(x_ND, width, None, None, eps))
            qkv_NA, up_NF = both.split_with_sizes([3 * attention, self.config.inner], 1)
            q_NHK, k_NHK, v_NHK = turns.apply(qkv_NA.view(self._shape)).unbind(1)
            attended_NHK = attend(layer, q_NHK, k_NHK, v_NHK)
            x_ND = x_ND + last(torch.cat((attended_NHK.flatten(1), F.gelu(up_NF, approximate=self._gelu)), 1))
        return torch.layer_norm(x_ND, width, *self._norm, eps)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        return self._head(hidden_ND)


def fuse(decoder: Decoder) -> "Decoder | FusedDecoder":
    """The decoder in its fastest form for answering; it is taken apart for that, and must not be used any more.

    On a GPU, and for a residual that is not parallel, that form is the decoder itself.
    """
    if decoder.device.type != "cpu" or not decoder.config.parallel_residual:
        return decoder
    with torch.inference_mode():
        return FusedDecoder(decoder)


def _first(block: Block) -> Product:
    """QKV and the MLP's first matrix, with the weights of their norms multiplied in."""
    parts = [_after_norm(block.qkv, block.norm1), _after_norm(block.up, block.norm2 or block.norm1)]
    dtype = block.qkv.weight.dtype
    return _product(torch.cat([w for w, _ in parts]).to(dtype), torch.cat([b for _, b in parts]).to(dtype))


def _last(block: Block) -> Product:
    """Both matrices that write to the stream, side by side."""
    weight = torch.cat([block.out.weight, block.down.weight], 1)
    return _product(weight, _bias(block.out) + _bias(block.down))


def _after_norm(linear: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """W (g x + c) + b as (W g) x + (W c + b), in float32."""
    weight = linear.weight.float()
    return weight * norm.weight.float(), weight @ norm.bias.float() + _bias(linear).float()


def _bias(linear: nn.Linear) -> Tensor:
    return linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias.detach()


def _product(weight_OI: Tensor, bias_O: Tensor) -> Product:
    if _has_blocked_layout(weight_OI.dtype):
        return _BlockedProduct(weight_OI, bias_O)
    weight_IO = weight_OI.t().contiguous()
    return lambda x_NI: torch.addmm(bias_O, x_NI, weight_IO)


class _BlockedProduct:
    """x_NI · W + b with W in oneDNN's blocked layout, else torch would rearrange it in every call.

    Fewer rows than FEWEST_ROWS are filled up to that many: oneDNN's kernels for one or two rows are slower than those
    for four.
    """

    FEWEST_ROWS = 4

    def __init__(self, weight_OI: Tensor, bias_O: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), self.FEWEST_ROWS)
        self._bias_O = bias_O

    def __call__(self, x_NI: Tensor) -> Tensor:
        missing = self.FEWEST_ROWS - len(x_NI)
        if missing > 0:
            return self._of(F.pad(x_NI, (0, 0, 0, missing)))[: len(x_NI)]
        return self._of(x_NI)

    def _of(self, x_NI: Tensor) -> Tensor:
        out_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, self._weight, self._bias_O, "none", [], "")
        return out_NO


def _has_blocked_layout(dtype: torch.dtype) -> bool:
    if not torch._C._has_mkldnn:
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()))
