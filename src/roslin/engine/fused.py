"""A decoder for answering on a CPU: as few matrix products a layer as can be, and little else.

Where attention and MLP stand beside each other (GPT-NeoX, GPT-J) their first matrices can be one, and their last ones
too: both read the same normalised vector once the norms' own weights are multiplied into the matrices behind them. That
and the absence of modules halve the time of a step of a small model (bench/cpu_decode.py), where calls cost more than
arithmetic. Where one follows the other (llama) there are four products. The matrices are stored in oneDNN's blocked
layout.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roslin.engine.cpu.decoder import TAKEN, KernelDecoder
from roslin.engine.cpu.library import library
from roslin.engine.heads import HeadAttention
from roslin.engine.torch_packed import is_quantised, with_torch_kernels
from roslin.model import Attend, Block, Decoder, ModelConfig
from roslin.model.decoder import activation_of
from roslin.model.fp8 import has_fp8_cores
from roslin.model.grad_mode import no_grad
from roslin.model.quantised_linear import unpack_fp8
from roslin.model.rotary import Rotary, Turns

if TYPE_CHECKING:
    from roslin.engine.gpu.decoder import GpuDecoder

Product = Callable[[Tensor], Tensor]
"""x_NI to x_NI · W + b."""


class FusedDecoder:
    """Equals the decoder it was made from; its weights can no longer change."""

    def __init__(self, decoder: Decoder) -> None:
        """Take `decoder` apart, layer by layer, so that its weights and the fused ones are never both whole."""
        self.config: ModelConfig = decoder.config
        self.dtype, self.device = decoder.dtype, decoder.device
        self._embedding = decoder.embedding.weight.detach()
        self._norm = decoder.norm
        self._rotary = Rotary(self.config)
        kind = _Parallel if self.config.parallel_residual else _Sequential
        self._layers: list[_Parallel | _Sequential] = []
        for layer, block in enumerate(decoder.blocks):
            assert isinstance(block, Block)
            self._layers.append(kind(self.config, block))
            decoder.blocks[layer] = nn.Identity()
        self._head = _product(decoder.head.weight.detach(), _bias(decoder.head))

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        """The hidden states after the final norm, [N, D], or [M, D] of some places alone."""
        x_ND = F.embedding(ids_N, self._embedding)
        turns = self._rotary.turns(positions_N, self.dtype, attend)
        for layer in self._layers:
            x_ND = layer(x_ND, turns, attend)
        normed_ND: Tensor = self._norm(x_ND if places_M is None else x_ND[places_M])
        return normed_ND

    def logits(self, hidden_ND: Tensor) -> Tensor:
        """The logits of every row of the head, [N, V]."""
        return self._head(hidden_ND)


@no_grad
def fuse(decoder: Decoder) -> "Decoder | FusedDecoder | KernelDecoder | GpuDecoder":
    """The decoder in its fastest form for answering; it is taken apart for that, and must not be used any more.

    On a GPU it runs by our own kernels where Triton is; on a CPU likewise, or by torch's where ours are missing.
    """
    if decoder.device.type != "cpu":
        return _on_gpu(decoder)
    if decoder.dtype in TAKEN and library() is not None:
        return KernelDecoder(decoder)
    if not is_quantised(decoder):
        return FusedDecoder(decoder)
    unpack_fp8(decoder)  # of which torch's kernels know nothing
    return with_torch_kernels(decoder)


def _on_gpu(decoder: Decoder) -> "Decoder | GpuDecoder":
    """The decoder by Triton's kernels, or itself where they are not for it."""
    if decoder.device.type != "cuda" or find_spec("triton") is None:
        return decoder
    from roslin.engine.gpu.decoder import GpuDecoder, takes

    if not has_fp8_cores(decoder.device):
        _without_fp8(decoder)
    return GpuDecoder(decoder) if takes(decoder) else decoder


def _without_fp8(decoder: Decoder) -> None:
    """For a GPU that reads none."""
    if unpack_fp8(decoder):
        warnings.warn(
            f"This GPU reads no fp8 (L4, RTX 40, H100 and later do): the weights are unpacked to {decoder.dtype}, "
            "twice the memory and half the speed. `roslin quantize --format int8` is as small, and read as it is here.",
            stacklevel=4,
        )


class _Parallel:
    """A layer whose attention and MLP stand beside each other: two products."""

    def __init__(self, config: ModelConfig, block: Block) -> None:
        self._center = _centering(config)
        self._rows = [config.qkv_rows, config.up_rows]
        self._first = _product(*_stacked(_after_norm(block.qkv, block.norm1), _after_norm(block.up, _mlp_norm(block))))
        self._last = _product(torch.cat([block.out.weight, block.down.weight], 1), _bias(block.out) + _bias(block.down))
        self._attention = HeadAttention(config, block)
        self._activate = activation_of(config)

    def __call__(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        qkv_NA, up_NF = self._first(self._center(x_ND)).split_with_sizes(self._rows, 1)
        attended_NA = self._attention(qkv_NA, turns, attend)
        return x_ND + self._last(torch.cat((attended_NA, self._activate(up_NF)), 1))


class _Sequential:
    """A layer whose MLP reads what attention has written: four products."""

    def __init__(self, config: ModelConfig, block: Block) -> None:
        self._center = _centering(config)
        self._qkv = _product(*_after_norm(block.qkv, block.norm1))
        self._out = _product(block.out.weight.detach(), _bias(block.out))
        self._up = _product(*_after_norm(block.up, _mlp_norm(block)))
        self._down = _product(block.down.weight.detach(), _bias(block.down))
        self._attention = HeadAttention(config, block)
        self._activate = activation_of(config)

    def __call__(self, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        x_ND = x_ND + self._out(self._attention(self._qkv(self._center(x_ND)), turns, attend))
        return x_ND + self._down(self._activate(self._up(self._center(x_ND))))


def _centering(config: ModelConfig) -> Callable[[Tensor], Tensor]:
    """The norm of a layer without its weights."""
    width, eps = [config.width], config.norm_eps
    if config.norm == "rms":
        return lambda x_ND: F.rms_norm(x_ND, width, None, eps)
    return lambda x_ND: torch.layer_norm(x_ND, width, None, None, eps)


def _mlp_norm(block: Block) -> nn.Module:
    return block.norm1 if block.norm2 is None else block.norm2


def _after_norm(linear: nn.Linear, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """W (g x + c) + b as (W g) x + (W c + b), multiplied in float32 and rounded once."""
    weight, bias = linear.weight.float(), _bias(linear).float()
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    if isinstance(norm, nn.LayerNorm):
        bias = weight @ norm.bias.float() + bias
    return (weight * norm.weight.float()).to(linear.weight.dtype), bias.to(linear.weight.dtype)


def _stacked(*parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])


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
