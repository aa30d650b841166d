"""Numbers that overflow are noticed and the layer is named; scores of attention do not overflow; narrow dtypes stay
as close to float32 as transformers' do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from roslin.engine import GREEDY, Engine, Request, ScoreRow, fuse, score
from roslin.errors import MachineError
from roslin.model import Decoder, PackedAttention, load_decoder, packed_positions
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama
from tiny_decoders import FAMILIES, VOCABULARY, plain_logits, tiny_decoder

IDS = [7, 3, 11, 40, 2, 9] * 5


def generate(decoder: Any) -> list[float]:
    [done] = Engine(decoder, VOCABULARY).run([Request(IDS, 8, GREEDY)])
    return list(done.logprobs)


def score_all(decoder: Any) -> list[float]:
    return score(decoder, [ScoreRow(IDS, 1)])[0]


@torch.no_grad()
def with_scaled(decoder: Decoder, part: str, factor: float) -> Decoder:
    decoder.get_parameter(part).mul_(factor)
    return decoder.half()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ask", [generate, score_all])
@pytest.mark.parametrize("form", [lambda decoder: decoder, fuse], ids=["plain", "fused"])
@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("blocks.0.down.weight", "in what layer 0 wrote, or in the queries, keys and values of layer 1."),
        ("blocks.1.qkv.weight", "in what layer 0 wrote, or in the queries, keys and values of layer 1."),
        ("blocks.2.down.weight", "in what layer 2 wrote, or in the norm behind it."),
        ("head.weight", "in the logits."),
    ],
)
def test_an_overflow_in_float16_names_the_layer(
    family: str, ask: Callable[[Any], Any], form: Callable[[Decoder], Any], part: str, where: str
) -> None:
    decoder = form(with_scaled(tiny_decoder(family), part, 3e4))
    with pytest.raises(MachineError, match=re.escape(where)) as caught:
        ask(decoder)
    assert "the largest float16" in str(caught.value)


def test_keys_that_overflow_are_not_passed_over() -> None:
    """Minus infinity as a score is a place not looked at: the logits are numbers, and wrong."""
    decoder = tiny_decoder("gpt_neox")
    block = decoder.blocks[1]
    query, key = 10, decoder.config.query_rows + 10  # a dimension that does not turn
    with torch.no_grad():
        block.qkv.weight[[query, key]] = 0
        block.qkv.weight[key, 0] = 8e3
        block.qkv.bias[query], block.qkv.bias[key] = -0.1, 6e4
    half = decoder.half()
    assert plain_logits(half, IDS).isfinite().all()
    with pytest.raises(MachineError, match="the queries, keys and values of layer 1"):
        score_all(half)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_far_beyond_float16_give_what_float32_gives(family: str) -> None:
    exact = tiny_decoder(family)
    if exact.config.qk_norm:
        parts = [parameter for name, parameter in exact.named_parameters() if re.search(r"[qk]_norm", name)]
        factor = 300.0
    else:
        rows = exact.config.query_rows + exact.config.key_rows
        parts = [parameter[:rows] for name, parameter in exact.named_parameters() if ".qkv." in name]
        factor = 250.0
    with torch.no_grad():
        for part in parts:
            part.mul_(factor)
        for parameter in exact.parameters():
            parameter.copy_(parameter.half())
    largest = largest_score(exact)
    assert largest > 1.5 * torch.finfo(torch.float16).max
    half = tiny_decoder(family)
    half.load_state_dict(exact.state_dict())
    found, expected = plain_logits(half.half(), IDS), plain_logits(exact, IDS)
    assert found.isfinite().all()
    # Attention so sharp looks at one place; where float16 rounds two places into each other's order, logits differ.
    assert ((found - expected).abs().amax(-1) < 0.05 * expected.abs().max()).float().mean() > 0.75


def largest_score(decoder: Decoder) -> float:
    found = []

    class Looking(PackedAttention):
        def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            k_NHK = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
            found.append(torch.einsum("nhk,mhk->hnm", q, k_NHK).abs().max().item())
            return super().__call__(layer, q, k, v)

    with torch.no_grad():
        decoder.hidden(torch.tensor(IDS), packed_positions([len(IDS)]), Looking([len(IDS)], decoder.config.window))
    return max(found)


MAKERS: list[tuple[Callable[..., PreTrainedModel], dict[str, Any]]] = [
    (tiny_gpt_neox, {}),
    (tiny_gptj, {}),
    (tiny_llama, {}),
    (tiny_llama, {"kind": "qwen3"}),
]


@pytest.mark.parametrize(("maker", "overrides"), MAKERS, ids=["gpt_neox", "gptj", "llama", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@torch.no_grad()
def test_narrow_dtypes_are_as_close_to_float32_as_in_transformers(
    maker: Callable[..., PreTrainedModel], overrides: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    ours, theirs = [], []
    ids_BT = torch.randint(128, (4, 60), generator=torch.Generator().manual_seed(0))
    for seed in range(3):
        folder = tmp_path / str(seed)
        exact = maker(folder, seed=seed, **overrides)(ids_BT).logits
        narrow = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)(ids_BT).logits
        decoder = load_decoder(folder, dtype=dtype)
        found = torch.stack([plain_logits(decoder, ids.tolist()) for ids in ids_BT])
        ours.append((found - exact).abs().mean().item())
        theirs.append((narrow.float() - exact).abs().mean().item())
    assert sum(ours) < 1.1 * sum(theirs)
