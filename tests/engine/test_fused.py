from typing import Any

import pytest
import torch

from roslin.engine import GREEDY, Engine, FusedDecoder, Request, Sampling, ScoreRow, score
from roslin.engine.fused import _product
from roslin.model import Decoder, PackedAttention, find_model, load_decoder, packed_positions
from tiny_decoders import FAMILIES, VOCABULARY, plain_logits, tiny_decoder


@torch.inference_mode()
def fuse(decoder: Decoder) -> FusedDecoder:
    return FusedDecoder(decoder)


REQUESTS = [Request([n + 3, 9, 2] * (n + 1), 60, Sampling(seed=n) if n % 2 else GREEDY) for n in range(5)]


@pytest.mark.parametrize(
    ("family", "changes"), [*((family, {}) for family in FAMILIES), ("gpt_neox", {"parallel_residual": False})]
)
def test_a_fused_decoder_answers_as_the_plain_one(family: str, changes: dict[str, Any]) -> None:
    plain, fused = tiny_decoder(family, **changes), fuse(tiny_decoder(family, **changes))
    expected = Engine(plain, VOCABULARY, 3).run(REQUESTS)
    found = Engine(fused, VOCABULARY, 3).run(REQUESTS)
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)


def test_the_shipped_base_fused_keeps_its_log_probabilities_to_1e_4() -> None:
    plain, fused = load_decoder(find_model("base"), dtype=torch.float32), load_decoder(find_model("base"))
    fused = fuse(fused.float())
    torch.manual_seed(0)
    ids = torch.randint(0, 8192, (200,)).tolist()
    expected = plain_logits(plain, ids).log_softmax(-1)[range(199), ids[1:]]
    [found] = score(fused, [ScoreRow(ids, 1)])
    assert torch.allclose(torch.tensor(found), expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_some_places_can_be_had_alone(family: str) -> None:
    ids, attend = torch.arange(60), PackedAttention([60])
    for decoder in (tiny_decoder(family), fuse(tiny_decoder(family))):
        whole = decoder.hidden(ids, packed_positions([60]), attend)
        places = torch.tensor([40, 3, 3])
        assert torch.equal(decoder.hidden(ids, packed_positions([60]), attend, places), whole[places])


def test_bfloat16_stays_close_to_float32_for_prompts_and_for_steps() -> None:
    exact = tiny_decoder("gpt_neox")
    fused = fuse(tiny_decoder("gpt_neox").bfloat16())
    ids = [7, 3, 11] * 20
    expected = plain_logits(exact, ids).log_softmax(-1)
    plain = plain_logits(tiny_decoder("gpt_neox").bfloat16(), ids).log_softmax(-1)
    found = plain_logits(fused, ids).log_softmax(-1)
    # As close to float32 as the plain decoder in bfloat16 is, give or take.
    assert (found - expected).abs().mean() < 1.5 * (plain - expected).abs().mean() + 1e-3
    # Step by step, over keys and values from the cache, in a batch whose members differ in length.
    done = Engine(fused, VOCABULARY, 3).run([Request(ids[: 3 + n], 40, GREEDY) for n in range(3)])
    for n, completion in enumerate(done):
        whole = [*ids[: 3 + n], *completion.ids]
        exactly = plain_logits(exact, whole).log_softmax(-1)[range(2 + n, len(whole) - 1), list(completion.ids)]
        rounded = plain_logits(tiny_decoder("gpt_neox").bfloat16(), whole).log_softmax(-1)
        rounded = rounded[range(2 + n, len(whole) - 1), list(completion.ids)]
        error = (torch.tensor(completion.logprobs) - exactly).abs().mean()
        assert error < 1.5 * (rounded - exactly).abs().mean() + 2e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 17])
def test_a_product_is_the_same_for_few_rows_and_for_many(dtype: torch.dtype, rows: int) -> None:
    """Few rows are filled up, for speed; what they hold comes out unharmed, from whatever memory they lie in."""
    torch.manual_seed(rows)
    weight, bias = torch.randn(37, 24, dtype=dtype), torch.randn(37, dtype=dtype)
    x = torch.randn(24, rows, dtype=dtype).t()
    with torch.inference_mode():
        found = _product(weight, bias)(x)
    expected = x.double() @ weight.double().t() + bias.double()
    assert found.shape == (rows, 37)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
