"""The GPU's decoder in Triton's interpreter against the plain one."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from roslin.engine import GREEDY, Engine, Request, Sampling
from roslin.engine.gpu.decoder import GpuDecoder, takes
from roslin.engine.gpu.launch import Launch
from roslin.engine.gpu.matrix import in_int8
from roslin.model import Decoder
from roslin.model.quantised import Form, quantise
from roslin.model.quantised_linear import QuantisedLinear, unpack_fp8
from tiny_decoders import FAMILIES, VOCABULARY, plain_logits, quantised, tiny_decoder

SERIAL = {"parallel_residual": False}
KINDS: list[tuple[str, dict[str, Any]]] = [*((family, {}) for family in FAMILIES), ("gpt_neox", SERIAL)]


@torch.no_grad()
def on_gpu(decoder: Decoder, *how: Any) -> GpuDecoder:
    """In few programs, each of which the interpreter runs for long."""
    made = GpuDecoder(decoder, *how)
    made.launches.update(dict.fromkeys(made.launches, Launch(64, 64)))
    return made


@pytest.mark.parametrize(("family", "changes"), KINDS)
def test_answers_through_the_engine_as_the_plain_decoder(family: str, changes: dict[str, Any]) -> None:
    requests = [Request([n + 3, 9, 2] * (3 * n + 1), 9 - n, Sampling(seed=n) if n % 2 else GREEDY) for n in range(3)]
    expected = Engine(tiny_decoder(family, **changes), VOCABULARY, 2).run(requests)
    found = Engine(on_gpu(tiny_decoder(family, **changes)), VOCABULARY, 2).run(requests)
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("head_dim", [64, 80, 96, 128])
def test_one_token_at_the_families_heads(head_dim: int) -> None:
    sizes = {"head_dim": head_dim, "width": 2 * head_dim, "inner": 200, "rotary_dims": head_dim // 4, "layers": 1}
    plain, ours = tiny_decoder("gpt_neox", **sizes), on_gpu(tiny_decoder("gpt_neox", **sizes))
    torch.testing.assert_close(plain_logits(ours, [7]), plain_logits(plain, [7]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain_logits(ours, [7, 5]), plain_logits(plain, [7, 5]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "qwen3"])
@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
@pytest.mark.parametrize("ids", [[7], [7, 3, 11], [5, 9] * 9])
def test_a_quantised_model_equals_itself_dequantised(family: str, form: Form, ids: list[int]) -> None:
    plain, ours = quantised(tiny_decoder(family), form), on_gpu(quantised(tiny_decoder(family), form))
    torch.testing.assert_close(plain_logits(ours, ids), plain_logits(plain, ids), rtol=1e-4, atol=1e-4)


def test_matrices_can_be_held_in_another_form() -> None:
    ours, stored = on_gpu(tiny_decoder("gpt_neox"), in_int8), on_gpu(quantised(tiny_decoder("gpt_neox"), "int8"))
    plain = tiny_decoder("gpt_neox")
    stored._embedding = plain.embedding
    torch.testing.assert_close(plain_logits(ours, [7]), plain_logits(stored, [7]))


def test_bfloat16_is_as_close_to_float32_as_the_plain_decoder() -> None:
    exact, ids = plain_logits(tiny_decoder("gpt_neox"), [7]), [7]
    error = (plain_logits(on_gpu(tiny_decoder("gpt_neox").bfloat16()), ids) - exact).norm()
    assert error < 1.2 * (plain_logits(tiny_decoder("gpt_neox").bfloat16(), ids) - exact).norm()


def test_weights_are_not_twice_in_memory() -> None:
    """Each layer of the plain decoder is gone once ours has its matrices; the head is the very same one."""
    decoder = tiny_decoder("gpt_neox")
    head = decoder.head.weight.data_ptr()
    ours = on_gpu(decoder)
    assert not list(decoder.blocks.parameters())
    assert ours.products[-1]._matrix.weight.data_ptr() == head


def test_what_the_kernels_are_not_for_is_refused() -> None:
    assert takes(tiny_decoder("gpt_neox")) and takes(quantised(tiny_decoder("gptj"), "int8"))
    assert takes(quantised(tiny_decoder("gptj"), "int4"))
    for decoder in (tiny_decoder("llama"), quantised(tiny_decoder("llama"), "int4")):
        decoder.blocks[1].up = QuantisedLinear(quantise(torch.randn(128, 32), "int4", 64), None)
        assert not takes(decoder)
    mixed = quantised(tiny_decoder("gptj"), "int8")
    mixed.blocks[1].up = QuantisedLinear(quantise(torch.randn(64, 32), "fp8"), mixed.blocks[1].up.bias)
    assert not takes(mixed)


def test_a_gpu_without_fp8_has_its_weights_unpacked() -> None:
    plain, packed = quantised(tiny_decoder("gptj"), "fp8"), quantised(tiny_decoder("gptj"), "fp8")
    assert unpack_fp8(packed)
    assert takes(packed) and not any(isinstance(module, QuantisedLinear) for module in packed.modules())
    torch.testing.assert_close(plain_logits(packed, [7, 3]), plain_logits(plain, [7, 3]))
    torch.testing.assert_close(plain_logits(on_gpu(packed), [7, 3]), plain_logits(plain, [7, 3]), rtol=1e-4, atol=1e-4)
    assert not unpack_fp8(quantised(tiny_decoder("gptj"), "int8"))


def test_an_early_start_is_told_to_triton() -> None:
    assert "launch_pdl" not in Launch(4, 64).options
    assert replace(Launch(4, 64), early=1).options["launch_pdl"] is True
