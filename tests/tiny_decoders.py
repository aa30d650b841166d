"""Tiny random decoders of both families, and the slow plain way to generate with them."""

from collections.abc import Sequence

import torch

from roslin.engine import Network
from roslin.model import Decoder, ModelConfig, PackedAttention, packed_positions

VOCABULARY = 61
"""The tokenizer's size in these tests; the head has three padding rows more."""

NEOX = {"family": "gpt_neox", "rotary_dims": 4, "rotary_interleaved": False, "activation": "gelu", "shared_norm": False}
GPTJ = {"family": "gptj", "rotary_dims": 8, "rotary_interleaved": True, "activation": "gelu_new", "shared_norm": True}


def tiny_decoder(
    family: str, positions: int = 400, parallel_residual: bool = True, vocab_rows: int = VOCABULARY + 3
) -> Decoder:
    """Three layers, two heads; weights large enough that its distributions are neither flat nor certain."""
    own = NEOX if family == "gpt_neox" else GPTJ
    config = ModelConfig(
        **own,
        width=32,
        layers=3,
        heads=2,
        head_dim=16,
        inner=64,
        vocab_rows=vocab_rows,
        positions=positions,
        rotary_base=10000.0,
        norm_eps=1e-5,
        parallel_residual=parallel_residual,
        attention_bias=family == "gpt_neox",
        head_bias=family == "gptj",
        tied_head=False,
        eos_id=0,
        bos_id=0,
    )
    torch.manual_seed(7)
    decoder = Decoder(config)
    for name, parameter in decoder.named_parameters():
        torch.nn.init.normal_(parameter, std=0.4 if parameter.ndim > 1 else 0.1)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1
    # The padding rows would win every draw if anything let them take part.
    decoder.head.weight.data[vocab_rows - 3 :] *= 5
    return decoder


@torch.inference_mode()
def plain_logits(decoder: Network, ids: Sequence[int]) -> torch.Tensor:
    """Logits of every position, computed anew from the whole sequence."""
    hidden = decoder.hidden(torch.tensor(ids), packed_positions([len(ids)]), PackedAttention([len(ids)]))
    return decoder.logits(hidden).float()
