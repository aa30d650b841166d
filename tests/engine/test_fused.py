import pytest
import torch

from roslin.engine import GREEDY, Engine, FusedDecoder, Request, Sampling, ScoreRow, fuse, score
from roslin.model import find_model, load_decoder
from tiny_decoders import VOCABULARY, plain_logits, tiny_decoder

REQUESTS = [Request([n + 3, 9, 2] * (n + 1), 60, Sampling(seed=n) if n % 2 else GREEDY) for n in range(5)]


@pytest.mark.parametrize("family", ["gpt_neox", "gptj"])
def test_a_fused_decoder_answers_as_the_plain_one(family: str) -> None:
    plain, fused = tiny_decoder(family), fuse(tiny_decoder(family))
    assert isinstance(fused, FusedDecoder)
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


def test_bfloat16_stays_close_to_float32_for_prompts_and_for_steps() -> None:
    exact = tiny_decoder("gpt_neox")
    fused = fuse(tiny_decoder("gpt_neox").bfloat16())
    ids = [7, 3, 11] * 20
    expected = plain_logits(exact, ids).log_softmax(-1)
    plain = plain_logits(tiny_decoder("gpt_neox").bfloat16(), ids).log_softmax(-1)
    found = plain_logits(fused, ids).log_softmax(-1)
    # As close to float32 as the plain decoder in bfloat16 is, give or take.
    assert (found - expected).abs().mean() < 1.5 * (plain - expected).abs().mean() + 1e-3


def test_a_residual_that_is_not_parallel_is_left_alone() -> None:
    decoder = tiny_decoder("gpt_neox", parallel_residual=False)
    assert fuse(decoder) is decoder
    [done] = Engine(decoder, VOCABULARY).run([Request([1, 2], 5, GREEDY)])
    assert len(done.ids) == 5
