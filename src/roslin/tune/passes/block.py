"""A block of the parallel-residual families with its backward pass written out: it keeps 9 D numbers a token.

Attention and MLP read the same stream and add to it, so the passes need little: kept are the stream, the turned
queries, keys and values, what attention gathered, and what goes into the activation. Norms and activation are made
again in the backward pass by kernels that read those anyway. Any number of tokens runs, nothing is compiled for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from roslin.model import Decoder, ModelConfig
from roslin.model.attention import Attend
from roslin.model.decoder import Block
from roslin.model.rotary import Turns
from roslin.tune.passes import plain
from roslin.tune.passes.plain import Affine
from roslin.tune.passes.products import PlainProducts, Products


@dataclass(frozen=True)
class How:
    """With what a block's passes are computed."""

    config: ModelConfig
    products: Products
    elementwise: ModuleType
    """`plain`, or `kernels`, which has the same functions."""
    recompute: bool
    """Keep the stream alone, and run the block again in the backward pass."""


def speed_up(decoder: Decoder, *, products: Products | None = None, recomputed_layers: int = 0) -> None:
    """Have every block of the decoder run its passes so; the first `recomputed_layers` keep their input alone.

    The first, because the others' memory is free again by the time that these are run a second time. For decoders
    whose configuration `roslin.memory.passes.written_out` names.
    """
    elementwise = elementwise_for(decoder.device)
    for layer, block in enumerate(decoder.blocks):
        assert isinstance(block, Block)
        block.runner = _runner(How(decoder.config, products or PlainProducts(), elementwise, layer < recomputed_layers))


def recompute(decoder: Decoder, layers: int) -> None:
    """Have the first `layers` blocks, of any family, keep their input alone and run again in the backward pass."""
    for block in list(decoder.blocks)[:layers]:
        assert isinstance(block, Block)
        block.runner = _run_again


def _run_again(block: Block, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
    # Dropout of adapters must drop the same again: torch keeps the random state for that.
    out_ND: Tensor = checkpoint(block.run, x_ND, turns, attend, use_reentrant=False)
    return out_ND


def elementwise_for(device: torch.device) -> ModuleType:
    """The functions of `plain`, as Triton kernels on a GPU."""
    if device.type != "cuda":
        return plain
    from roslin.tune.passes import kernels

    return kernels


def _runner(how: How) -> Callable[[Block, Tensor, Turns, Attend], Tensor]:
    def run(block: Block, x_ND: Tensor, turns: Turns, attend: Attend) -> Tensor:
        out_ND: Tensor = _Pass.apply(x_ND, block, turns, attend, how, *block.parameters())  # type: ignore[no-untyped-call]
        return out_ND

    return run


@dataclass
class _Kept:
    """What a forward pass leaves for its backward pass."""

    x_ND: Tensor
    attended: Any
    """As `attend` of the elementwise work left it: with `gathered_NHK`, and what else its backward needs."""
    up_NF: Tensor


class _Pass(torch.autograd.Function):
    """The block as one node of the graph; gradients go to its parameters in their order."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, block: Block, turns: Turns, attend: Attend, how: How, *parameters: Tensor
    ) -> Tensor:
        ctx.block, ctx.turns, ctx.attend, ctx.how = block, turns, attend, how
        out_ND, kept = _forward(x_ND, block, turns, attend, how)
        ctx.kept = x_ND if how.recompute else kept
        return out_ND

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        block, turns, how, kept = ctx.block, ctx.turns, ctx.how, ctx.kept
        ctx.kept = None
        if how.recompute:
            _, kept = _forward(kept, block, turns, ctx.attend, how, keep_only=True)
        found = _Gradients(block)
        grad_x_ND = _backward(grads[0].contiguous(), kept, block, turns, how, found)
        return grad_x_ND, None, None, None, None, *found.in_order()


class _Gradients:
    """Gradients of a block's parameters. A matrix that has one already is added to by the product itself."""

    def __init__(self, block: Block) -> None:
        self._found: dict[Tensor, Tensor | None] = dict.fromkeys(block.parameters())

    def of_matrix(self, weight: Tensor, products: Products, grad: Any, x: Any) -> None:
        if weight.grad is None:
            self._found[weight] = products.grad_weight(grad, x, None)
        else:
            products.grad_weight(grad, x, weight.grad)

    def of_vector(self, parameter: Tensor | None, sums: Tensor) -> None:
        if parameter is not None:
            self._found[parameter] = sums.to(parameter.dtype)

    def in_order(self) -> list[Tensor | None]:
        return list(self._found.values())


def _affines(block: Block) -> tuple[Affine, ...]:
    return tuple((norm.weight, norm.bias) for norm in _norms(block))


def _norms(block: Block) -> list[nn.LayerNorm]:
    return [norm for norm in (block.norm1, block.norm2) if isinstance(norm, nn.LayerNorm)]


def _forward(
    x_ND: Tensor, block: Block, turns: Turns, attend: Attend, how: How, *, keep_only: bool = False
) -> tuple[Tensor, _Kept]:
    """The block's output and what is kept; with `keep_only` the output is the input, its products being left out."""
    work, products, config = how.elementwise, how.products, how.config
    normed, _ = work.norms(x_ND, _affines(block), config.norm_eps)
    qkv_NR = products.forward(products.operand(normed[0]), block.qkv.weight, block.qkv.bias)
    heads = (config.heads, config.kv_heads, config.kv_heads)
    turned = work.turn(qkv_NR.view(len(x_ND), sum(heads), config.head_dim), turns)
    attended = work.attend(turned, attend, block.layer, heads)
    up_NF = products.forward(products.operand(normed[-1]), block.up.weight, block.up.bias)
    kept = _Kept(x_ND, attended, up_NF)
    if keep_only:
        return x_ND, kept
    del normed
    gathered_ND = attended.gathered_NHK.detach().flatten(1)
    out_ND = products.forward(products.operand(gathered_ND), block.out.weight, block.out.bias)
    active_NF = work.activate(up_NF, config.activation)
    down_ND = products.forward(products.operand(active_NF), block.down.weight, block.down.bias)
    return work.add(x_ND, out_ND, down_ND), kept


def _backward(grad_ND: Tensor, kept: _Kept, block: Block, turns: Turns, how: How, found: _Gradients) -> Tensor:
    """The gradient of the block's input; those of its parameters go into `found`."""
    work, products, config = how.elementwise, how.products, how.config
    grad = products.operand(grad_ND)
    if block.out.bias is not None or block.down.bias is not None:
        sums_D = work.column_sums(grad_ND)
        found.of_vector(block.out.bias, sums_D)
        found.of_vector(block.down.bias, sums_D)
    normed, statistics_N2 = work.norms(kept.x_ND, _affines(block), config.norm_eps)

    grad_active_NF = products.grad_input(grad, block.down.weight)
    active_NF, grad_up_NF, sums_F = work.activate_backward(kept.up_NF, grad_active_NF, config.activation)
    del grad_active_NF
    kept.up_NF = kept.up_NF.new_empty(0)
    found.of_matrix(block.down.weight, products, grad, products.operand(active_NF))
    del active_NF
    found.of_vector(block.up.bias, sums_F)
    grad_up = products.operand(grad_up_NF)
    found.of_matrix(block.up.weight, products, grad_up, products.operand(normed[-1]))
    grads_normed = [products.grad_input(grad_up, block.up.weight)]
    del grad_up, grad_up_NF

    gathered = products.operand(kept.attended.gathered_NHK.detach().flatten(1))
    found.of_matrix(block.out.weight, products, grad, gathered)
    grad_gathered_ND = products.grad_input(grad, block.out.weight)
    del grad, gathered
    grad_qkv_NR, sums_R = work.attend_backward(
        kept.attended, grad_gathered_ND.view_as(kept.attended.gathered_NHK), turns
    )
    del grad_gathered_ND
    found.of_vector(block.qkv.bias, sums_R)
    grad_qkv = products.operand(grad_qkv_NR)
    found.of_matrix(block.qkv.weight, products, grad_qkv, products.operand(normed[0]))
    del normed
    grads_normed.insert(0, products.grad_input(grad_qkv, block.qkv.weight))
    del grad_qkv, grad_qkv_NR

    grad_x_ND: Tensor
    grad_x_ND, of_affines = work.norms_backward(kept.x_ND, statistics_N2, grads_normed, _affines(block), grad_ND)
    for norm, (gain, bias) in zip(_norms(block), of_affines, strict=True):
        found.of_vector(norm.weight, gain)
        found.of_vector(norm.bias, bias)
    return grad_x_ND
