"""Memory of answering by part, against what torch holds."""

from pathlib import Path
from typing import get_args

import pytest
import torch

from allocations import bytes_of, peak_of, scaled
from roslin import memory
from roslin.engine import GREEDY, Engine, Request, sampler, scheduler
from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cache import KVCache
from roslin.engine.fused import FusedDecoder
from roslin.engine.request import Sampling
from roslin.engine.scheduler import PROMPT_TOKENS_PER_PASS
from roslin.engine.speculation import SIZES
from roslin.memory import Device, Kept, Precision, answering, cache_tokens, layers, token_bytes
from roslin.memory.layers import nf4_bytes
from roslin.model import Decoder
from roslin.model.fp8 import FP8
from roslin.model.nf4 import quantize_nf4
from roslin.model.quantised import Form
from tiny_decoders import FAMILIES, quantised, tiny_decoder

every_family = pytest.mark.parametrize("family", FAMILIES)
plain_precisions = pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])


@every_family
@plain_precisions
def test_weights_are_exact(family: str, precision: Precision, dtype: torch.dtype) -> None:
    decoder = tiny_decoder(family).to(dtype)
    assert answering(decoder.config, precision, 8, 1).weights == bytes_of(list(decoder.parameters()))


@every_family
def test_weights_in_nf4_are_exact(family: str) -> None:
    decoder = tiny_decoder(family).to(torch.bfloat16)
    matrices = [p for p in decoder.blocks.parameters() if p.dim() == 2]
    packed = [quantize_nf4(matrix) for matrix in matrices]
    rest = bytes_of(list(decoder.parameters())) - bytes_of(matrices)
    assert nf4_bytes(decoder.config) == rest + sum(weight.codes.nbytes + weight.absmax.nbytes for weight in packed)


@every_family
@pytest.mark.parametrize(("precision", "form"), [("int8", "int8"), ("int8", "fp8"), ("int4", "int4")])
def test_weights_in_few_bits_are_exact(
    family: str, precision: Precision, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of matrices whose rows do not come to whole groups too."""
    monkeypatch.setattr(layers, "INT4_GROUP", 32)
    decoder = quantised(tiny_decoder(family, inner=80).to(torch.bfloat16), form)
    kept = [*decoder.parameters(), *decoder.buffers()]
    assert answering(decoder.config, precision, 8, 1).weights == bytes_of(kept)


@every_family
@plain_precisions
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_keys_and_values_are_those_of_the_cache(
    family: str, precision: Precision, dtype: torch.dtype, device: str
) -> None:
    config = tiny_decoder(family).config
    cache = KVCache(config, dtype, torch.device(device))
    assert cache.provide(5 * blocks_for(70))
    whose: Device = "cpu" if device == "cpu" else "cuda"
    kept = [tensor for pair in cache.layers for tensor in pair]
    assert answering(config, precision, 70, 5, whose).keys_and_values == bytes_of(kept)


@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "llama"])
@pytest.mark.parametrize(("batch", "prompt"), [(1, 300), (8, 60), (8, 4)])
@pytest.mark.parametrize("with_tensors", [False, True])
def test_the_peak_of_answering(
    family: str, batch: int, prompt: int, with_tensors: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawn so warm that the nucleus is nearly the whole vocabulary: by a CPU's kernel, or with tensors as on a GPU."""
    if with_tensors:
        monkeypatch.setattr(sampler, "has_kernel", lambda device: False)
    config = scaled(family, layers=2, vocab_rows=8192)
    tokens = batch * blocks_for(prompt + 3) * BLOCK
    engine = Engine(FusedDecoder(Decoder(config)), 8192, max_batch=batch, cache_tokens=tokens)
    requests = [Request(range(n, n + prompt), 3, Sampling(temperature=100.0)) for n in range(batch)]
    predicted = answering(config, "fp32", prompt + 3, batch, "cpu")
    peak = peak_of(lambda: engine.run(requests), tmp_path)
    total = predicted.keys_and_values + predicted.workspace
    if with_tensors or prompt > 4:
        assert total == pytest.approx(peak, rel=0.1)
    else:  # the kernel takes next to nothing, and prompts are reckoned as long as they may become
        assert total / 2 < peak < total


@pytest.mark.parametrize("cache_dtype", [None, FP8])
def test_a_draft_has_weights_and_a_cache_of_its_own(
    cache_dtype: torch.dtype | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By part as the engine holds them, and at the fullest moment: prompts are read when both caches are there."""
    config = scaled("llama", layers=2, vocab_rows=8192)
    small = scaled("gpt_neox", layers=3, width=384, heads=6, kv_heads=6, inner=1536, vocab_rows=8192)
    batch, prompt, new = 8, 100, 12
    tokens = batch * blocks_for(prompt + new) * BLOCK
    caches: list[KVCache] = []
    monkeypatch.setattr("roslin.engine.store.KVCache", lambda *what: caches.append(KVCache(*what)) or caches[-1])
    decoder, draft = FusedDecoder(Decoder(config)), Decoder(small)
    engine = Engine(
        decoder, 8192, max_batch=batch, cache_tokens=tokens, cache_dtype=cache_dtype, draft=draft, speculate=True
    )
    requests = [[Request(range(n + m, n + m + prompt), new, GREEDY) for n in range(batch)] for m in (0, 20)]
    predicted = answering(
        config, "fp32", prompt + new, batch, "cpu", draft=small, cache="fp8" if cache_dtype else "auto"
    )
    assert predicted.draft_weights == bytes_of(list(draft.parameters()))
    peak = peak_of(lambda: [engine.run(part) for part in requests], tmp_path)
    held = [bytes_of([tensor for pair in cache.layers for tensor in pair]) for cache in caches]
    assert held == [predicted.keys_and_values, predicted.draft_keys_and_values]
    assert predicted.total - predicted.weights - predicted.draft_weights == pytest.approx(peak, rel=0.1)


def test_a_cache_in_fp8_is_gathered_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many answers that takes more than reading a prompt does."""
    monkeypatch.setattr(scheduler, "PROMPT_TOKENS_PER_PASS", 64)
    monkeypatch.setitem(answering.__globals__, "PROMPT_TOKENS", 64)
    config = scaled("gpt_neox", layers=3, width=256, heads=4, kv_heads=4, inner=1024, vocab_rows=512)
    batch, prompt, new = 32, 2, 60
    tokens = batch * blocks_for(prompt + new) * BLOCK
    decoder = FusedDecoder(Decoder(config))
    engine = Engine(decoder, 512, max_batch=batch, cache_tokens=tokens, cache_dtype=FP8, speculate=False)
    peak = peak_of(lambda: engine.run([Request([n, n], new, GREEDY) for n in range(batch)]), tmp_path)
    predicted = answering(config, "fp32", prompt + new, batch, "cpu", cache="fp8")
    assert predicted.keys_and_values + predicted.workspace == pytest.approx(peak, rel=0.1)


@pytest.mark.parametrize("cache", get_args(Kept))
@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("batch", [7, 40])
def test_a_device_that_suffices_by_the_plan_has_a_cache_for_as_many(cache: Kept, drafted: bool, batch: int) -> None:
    config, small = tiny_decoder("gpt_neox").config, tiny_decoder("llama", layers=1).config
    draft = small if drafted else None
    needs = answering(config, "bf16", config.positions, batch, draft=draft, cache=cache)
    kept, beside = 1 if cache == "fp8" else 2, token_bytes(small, 2) if drafted else 0
    for size, fits in ((int(needs.total / 0.94) + 2, True), (int(needs.total / 0.94) - 64, False)):
        free = size - needs.weights - needs.draft_weights
        tokens = cache_tokens(config, 2, batch, free, size, "cuda", kept=kept, beside=beside)
        assert (tokens == batch * 400) == fits


def test_constants_are_those_of_the_rooms_above() -> None:
    assert (memory.PROMPT_TOKENS, memory.BLOCK_TOKENS) == (PROMPT_TOKENS_PER_PASS, BLOCK)
    assert SIZES[-1] - 1 == memory.DRAFTED
    assert quantize_nf4(torch.ones(2, 64)).block == memory.NF4_BLOCK
