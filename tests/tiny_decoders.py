"""Tiny random decoders of every family, and the slow plain way to generate with them."""

from collections.abc import Sequence
from typing import Any

import torch

from roslin.engine import Network
from roslin.model import Decoder, ModelConfig, PackedAttention, packed_positions
from roslin.model.quantised import Form, quantise
from roslin.model.quantised_linear import QuantisedEmbedding, QuantisedLinear

VOCABULARY = 61
"""The tokenizer's size in these tests; the head has three padding rows more."""

NEOX: dict[str, Any] = {
    "family": "gpt_neox",
    "kv_heads": 2,
    "rotary_dims": 4,
    "rotary_interleaved": False,
    "activation": "gelu",
    "shared_norm": False,
    "parallel_residual": True,
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
    "head_bias": False,
}
GPTJ = NEOX | {
    "family": "gptj",
    "rotary_dims": 8,
    "rotary_interleaved": True,
    "activation": "gelu_new",
    "shared_norm": True,
    "qkv_bias": False,
    "out_bias": False,
    "head_bias": True,
}
LLAMA = NEOX | {
    "family": "llama",
    "kv_heads": 1,
    "rotary_dims": 16,
    "activation": "silu",
    "parallel_residual": False,
    "qkv_bias": False,
    "out_bias": False,
    "mlp_bias": False,
    "norm": "rms",
    "gated_mlp": True,
}
FAMILIES = {
    "gpt_neox": NEOX,
    "gptj": GPTJ,
    "llama": LLAMA,
    "mistral": LLAMA | {"family": "mistral", "window": 9},
    "qwen2": LLAMA | {"family": "qwen2", "qkv_bias": True},
    "qwen3": LLAMA | {"family": "qwen3", "qk_norm": True},
}


def tiny_decoder(family: str, *, vocab_rows: int = VOCABULARY + 3, **changes: Any) -> Decoder:
    """Three layers, two heads; weights large enough that its distributions are neither flat nor certain.

    A wider one has smaller weights, so that its numbers are as large: those of larger ones are less exact in fp32, even
    the plain decoder's, than what some tests ask for.
    """
    sizes = {"width": 32, "layers": 3, "heads": 2, "head_dim": 16, "inner": 64, "positions": 400, "norm_eps": 1e-5}
    other = {"rotary_base": 10000.0, "tied_head": False, "eos_id": 0, "bos_id": 0}
    config = ModelConfig(**(sizes | other | FAMILIES[family] | {"vocab_rows": vocab_rows} | changes))
    torch.manual_seed(7)
    spread = (0.4 if config.parallel_residual else 0.3) * (sizes["width"] / config.width) ** 0.5
    decoder = Decoder(config)
    for name, parameter in decoder.named_parameters():
        torch.nn.init.normal_(parameter, std=spread if parameter.ndim > 1 else 0.1)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    # The padding rows would win every draw if anything let them take part.
    decoder.head.weight.data[vocab_rows - 3 :] *= 5
    return decoder


@torch.inference_mode()
def plain_logits(decoder: Network, ids: Sequence[int]) -> torch.Tensor:
    """Logits of every position, computed anew from the whole sequence."""
    attend = PackedAttention([len(ids)], decoder.config.window)
    return decoder.logits(decoder.hidden(torch.tensor(ids), packed_positions([len(ids)]), attend)).float()


def quantised(decoder: Decoder, form: Form) -> Decoder:
    """The decoder, its matrices in a form; embedding and head in int8 where the layers are in int4."""
    outer: Form = "int8" if form == "int4" else form
    for block in decoder.blocks:
        for name in ("qkv", "out", "up", "down"):
            linear = getattr(block, name)
            setattr(block, name, QuantisedLinear(quantise(linear.weight, form, 32), linear.bias))
    embedding = QuantisedEmbedding(quantise(decoder.embedding.weight, outer), lambda: decoder.dtype)
    decoder.add_module("embedding", embedding)
    decoder.add_module("head", QuantisedLinear(quantise(decoder.head.weight, outer), decoder.head.bias))
    return decoder
