from typing import Any

import pytest
import torch

from cpu_kernels import needs_kernels
from roslin.engine import GREEDY, Engine, Request, Sampling, ScoreRow, fuse, score
from roslin.engine.cpu.decoder import REPEATED, KernelDecoder
from roslin.engine.cpu.many import MANY, has_fast_bfloat16
from roslin.engine.store import usual_cache
from roslin.errors import InputError
from roslin.model import Decoder, PackedAttention, find_model, load_decoder, packed_positions
from roslin.model.quantised import Form
from tiny_decoders import FAMILIES, VOCABULARY, plain_logits, quantised, tiny_decoder

pytestmark = needs_kernels

REQUESTS = [Request([n + 3, 9, 2] * (n + 1), 60, Sampling(seed=n) if n % 2 else GREEDY) for n in range(5)]

IN_16_BITS = 2e-3
"""How far log-probabilities of these models are off on average where quantised matrices meet numbers of 16 bits."""


@pytest.mark.parametrize(
    ("family", "changes"), [*((family, {}) for family in FAMILIES), ("gpt_neox", {"parallel_residual": False})]
)
def test_the_kernels_answer_as_the_plain_decoder(family: str, changes: dict[str, Any]) -> None:
    plain, fused = tiny_decoder(family, **changes), fuse(tiny_decoder(family, **changes))
    assert isinstance(fused, KernelDecoder)
    expected = Engine(plain, VOCABULARY, 3).run(REQUESTS)
    found = Engine(fused, VOCABULARY, 3).run(REQUESTS)
    for one, other_one in zip(found, expected, strict=True):
        assert one.ids == other_one.ids
        assert one.logprobs == pytest.approx(other_one.logprobs, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_quantised_decoders_equal_themselves_dequantised(family: str, form: Form) -> None:
    plain, other = quantised(tiny_decoder(family), form), quantised(tiny_decoder(family), form)
    ids = [7, 3, 11, 9] * 15
    error = (plain_logits(fuse(other), ids).log_softmax(-1) - plain_logits(plain, ids).log_softmax(-1)).abs()
    assert error.mean() < IN_16_BITS
    assert error.max() < 10 * IN_16_BITS


def test_the_shipped_base_keeps_its_log_probabilities_to_1e_4() -> None:
    plain, fused = (load_decoder(find_model("base"), dtype=torch.float32) for _ in range(2))
    torch.manual_seed(0)
    ids = torch.randint(0, 8192, (200,)).tolist()
    expected = plain_logits(plain, ids).log_softmax(-1)[range(199), ids[1:]]
    [found] = score(fuse(fused), [ScoreRow(ids, 1)])
    assert torch.allclose(torch.tensor(found), expected, atol=1e-4)


@pytest.mark.parametrize("form", [None, "int8", "fp8", "int4"])
def test_in_float32_an_answer_is_the_same_to_the_bit_whatever_shares_its_batch(form: Form | None) -> None:
    decoder = tiny_decoder("gpt_neox")
    fused = fuse(decoder if form is None else quantised(decoder, form))
    hidden = fused.hidden(*_stream([7, 3, 11] * 20, [5] * 30))[:60]
    alone = fused.hidden(*_stream([7, 3, 11] * 20))
    assert torch.equal(hidden, alone)


EVERY_WAY = [
    *((family, {}) for family in FAMILIES),
    ("gpt_neox", {"parallel_residual": False}),
    ("gptj", {"layers": 1}),
    ("llama", {"layers": 2}),
]


@pytest.mark.parametrize(("family", "changes"), EVERY_WAY)
@pytest.mark.parametrize("tokens", [REPEATED - 4, 3 * REPEATED])
@pytest.mark.parametrize("form", [None, "int8", "fp8", "int4"])
def test_some_places_alone_and_ids_met_again_change_no_bit(
    family: str, changes: dict[str, Any], tokens: int, form: Form | None
) -> None:
    """Against the tokens in runs too short to be looked through for ids that are there several times."""
    decoder = tiny_decoder(family, **changes)
    fused = fuse(decoder if form is None else quantised(decoder, form))
    torch.manual_seed(tokens)
    runs = [torch.randint(0, 20, (REPEATED // 4,)).tolist() for _ in range(tokens // (REPEATED // 4))]
    whole = fused.hidden(*_stream(*runs))
    assert torch.equal(whole, torch.cat([fused.hidden(*_stream(run)) for run in runs]))
    for places in ([5], [40, 3, 3], list(range(len(whole)))):
        assert torch.equal(fused.hidden(*_stream(*runs), torch.tensor(places)), whole[places])
    if form is None:
        expected = tiny_decoder(family, **changes).hidden(*_stream(*runs))
        torch.testing.assert_close(whole, expected, atol=1e-4, rtol=1e-4)


def _stream(*runs: list[int]) -> tuple[torch.Tensor, torch.Tensor, Any]:

    lengths = [len(run) for run in runs]
    return torch.tensor([id for run in runs for id in run]), packed_positions(lengths), _OneByOne(lengths)


class _OneByOne:
    """Attention for one sequence at a time, so that it cannot be what differs."""

    def __init__(self, lengths: list[int]) -> None:
        self._lengths = lengths
        self._each = [PackedAttention([length]) for length in lengths]

    def __call__(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = zip(self._each, *(torch.split(x, self._lengths) for x in (q, k, v)), strict=True)
        return torch.cat([attend(layer, *(x.contiguous() for x in part)) for attend, *part in parts])

    def reach(self, positions_N: torch.Tensor) -> torch.Tensor:
        lengths = torch.tensor(self._lengths)
        return lengths.repeat_interleave(lengths)


@pytest.mark.parametrize("form", [None, "int8", "fp8"])
def test_keys_and_values_are_kept_as_the_weights_are_read(form: Form | None) -> None:
    def made() -> Decoder:
        decoder = tiny_decoder("llama").bfloat16()
        return decoder if form is None else quantised(decoder, form)

    fused = fuse(made())
    assert fused.dtype == torch.float32
    assert usual_cache(fused) == torch.bfloat16
    assert usual_cache(fuse(made().float())) == torch.float32
    engine = Engine(fused, VOCABULARY, 2, cache_dtype=torch.bfloat16)
    prompt = [7, 3, 11] * 20
    first, again = (engine.run([Request(prompt, 30, GREEDY)])[0] for _ in range(2))
    assert again.ids == first.ids  # the prompt is read anew, or found in the cache
    ids = [*prompt, *first.ids]
    expected = plain_logits(made().float(), ids).log_softmax(-1)[range(len(prompt) - 1, len(ids) - 1), first.ids]
    rounded = plain_logits(made(), ids).log_softmax(-1)[range(len(prompt) - 1, len(ids) - 1), first.ids]
    error = (torch.tensor(first.logprobs) - expected).abs()
    assert 0 < error.mean() < 1.5 * (rounded - expected).abs().mean() + 1e-3
    with pytest.raises(InputError, match=r"keeps torch\.bfloat16 or torch\.float8_e4m3fn"):
        Engine(fused, VOCABULARY, 2, cache_dtype=torch.float16)


@pytest.mark.skipif(not has_fast_bfloat16(), reason="torch has no instructions for bfloat16 here")
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", [None, "int8", "fp8", "int4"])
def test_many_rows_in_bfloat16_stay_close_to_few(family: str, form: Form | None) -> None:
    exact = tiny_decoder(family).bfloat16()
    wide, narrow = exact, tiny_decoder(family).bfloat16()
    if form is not None:
        wide, narrow = quantised(wide, form), quantised(narrow, form)
    ids = [7, 3, 11] * MANY
    expected = plain_logits(wide.float(), ids).log_softmax(-1)
    found = plain_logits(fuse(narrow), ids).log_softmax(-1)
    rounded = tiny_decoder(family).bfloat16()
    plain = plain_logits(rounded if form is None else quantised(rounded, form), ids).log_softmax(-1)
    assert 0 < (found - expected).abs().mean() < 1.5 * (plain - expected).abs().mean() + 1e-3
