"""Memory by part, against what torch holds: weights, moments, what autograd keeps, and the peaks of a pass."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from roslin import memory
from roslin.engine import Engine, Request
from roslin.engine.cache import KVCache
from roslin.engine.engine import PROMPT_TOKENS_PER_PASS
from roslin.engine.fused import fuse
from roslin.engine.request import Sampling
from roslin.memory import Device, Method, Precision, adapter_count, answering, gib, tuning
from roslin.model import Decoder, ModelConfig, load_decoder
from roslin.model.adapted import Lora, adapt, quantize_blocks
from roslin.model.lora import LoraLinear
from roslin.model.nf4 import quantize_nf4
from roslin.model.published import PUBLISHED
from roslin.tokens import Example
from roslin.tune.held_out import hidden_of_answers
from roslin.tune.loss import CHUNK
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import Pack, make_pack
from roslin.tune.recipe import Adapter
from roslin.tune.step import accumulate
from tiny_decoders import FAMILIES, tiny_decoder

PYTHIA = PUBLISHED["EleutherAI/pythia-2.8b"].config
GPTJ = PUBLISHED["EleutherAI/gpt-j-6B"].config

every_family = pytest.mark.parametrize("family", FAMILIES)
full_methods = pytest.mark.parametrize(("method", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])


def scaled(family: str, **changes: Any) -> ModelConfig:
    """A real model's proportions; grouped keys where the family has them."""
    config = tiny_decoder(family).config
    heads = 12 if config.kv_heads == config.heads else 4
    sizes = {"width": 768, "heads": 12, "kv_heads": heads, "head_dim": 64, "inner": 3072, "positions": 2048}
    return replace(config, **(sizes | changes))


def row(lengths: Sequence[int], vocabulary: int = 64) -> Pack:
    """A row of examples of these lengths, nearly all of them answers."""
    source = torch.Generator().manual_seed(0)
    ids = [torch.randint(vocabulary, (length,), generator=source).tolist() for length in lengths]
    return make_pack([Example(ids=one, answer_start=2) for one in ids])


def kept_by_autograd(decoder: Decoder, pack: Pack) -> int:
    """Bytes that a forward pass keeps for the backward pass, besides the parameters; shared memory counts once."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*decoder.parameters(), *decoder.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden_of_answers(decoder, pack)
    return sum(storage.nbytes() for storage in kept.values())


def peak_of(run: Callable[[], object], folder: Path) -> int:
    """The most bytes that torch's allocator for the CPU gave out during a run, above what it had before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    trace = json.loads((folder / "trace.json").read_text(encoding="utf-8"))
    events = sorted((e for e in trace["traceEvents"] if e["name"] == "[memory]"), key=lambda event: event["ts"])
    held = [event["args"]["Total Allocated"] for event in events]
    return max(held) - (held[0] - events[0]["args"]["Bytes"])


def bytes_of(tensors: Sequence[torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


@every_family
@full_methods
def test_weights_are_exact(family: str, method: Precision, dtype: torch.dtype) -> None:
    decoder = tiny_decoder(family).to(dtype)
    assert answering(decoder.config, method, 8, 1).weights == bytes_of(list(decoder.parameters()))


@every_family
def test_weights_in_nf4_are_exact(family: str) -> None:
    decoder = tiny_decoder(family).to(torch.bfloat16)
    matrices = [p for p in decoder.blocks.parameters() if p.dim() == 2]
    packed = [quantize_nf4(matrix) for matrix in matrices]
    rest = bytes_of(list(decoder.parameters())) - bytes_of(matrices)
    assert answering(decoder.config, "nf4", 8, 1).weights == rest + sum(
        weight.codes.nbytes + weight.absmax.nbytes for weight in packed
    )


@every_family
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_keys_and_values_are_those_of_the_cache(
    family: str, precision: Precision, dtype: torch.dtype, device: str
) -> None:
    config = tiny_decoder(family).config
    cache = KVCache(config, dtype, torch.device(device), most_slots=5)
    cache.ensure(5, 70, 70)
    whose: Device = "cpu" if device == "cpu" else "cuda"
    kept = [tensor for pair in cache.layers for tensor in pair]
    assert answering(config, precision, 70, 5, whose).keys_and_values == bytes_of(kept)


@every_family
@full_methods
def test_masters_gradients_and_moments_are_exact(family: str, method: Method, dtype: torch.dtype) -> None:
    decoder = tiny_decoder(family).to(dtype)
    optimizer = MasterAdamW(decoder, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0)
    accumulate(decoder, [row([20, 9])])
    predicted = tuning(decoder.config, method, 29, "cpu")
    masters = [m for name, m in optimizer.masters.items() if m is not optimizer.parameters[name]]
    assert predicted.masters == bytes_of(masters)
    assert predicted.gradients == bytes_of([m.grad for m in optimizer.masters.values() if m.grad is not None])
    optimizer.update(1e-3, None)
    state = optimizer.state()
    assert predicted.moments == bytes_of([tensor for name, tensor in state.items() if "exp_avg" in name])


def test_bytes_a_parameter() -> None:
    """18 in bf16 with fp32 masters, 16 in fp32."""
    for method, each in (("bf16", 18), ("fp32", 16)):
        found = tuning(PYTHIA, method, 2048)
        assert found.weights + found.masters + found.gradients + found.moments == each * PYTHIA.parameter_count


@every_family
@full_methods
@pytest.mark.parametrize("lengths", [[90, 70, 40], [1, 150]])
def test_activations_are_what_autograd_keeps(
    family: str, method: Method, dtype: torch.dtype, lengths: list[int]
) -> None:
    config = scaled(family, layers=3)
    kept = kept_by_autograd(Decoder(config).to(dtype), row(lengths))
    assert tuning(config, method, sum(lengths), "cpu").activations == pytest.approx(kept, rel=0.05)


def adapted(config: ModelConfig, method: Method) -> Decoder:
    """A decoder with an adapter of the rank that is predicted for, in training: it drops some of what it reads."""
    decoder = Decoder(config).to(torch.bfloat16)
    if method == "qlora":
        quantize_blocks(decoder, torch.device("cpu"))
    adapt(decoder, Lora(memory.RANK, 32, dropout=0.05), [], torch.Generator().manual_seed(0))
    return decoder.train()


@every_family
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_activations_of_adapters(family: str, method: Method) -> None:
    config = scaled(family, layers=3)
    kept = kept_by_autograd(adapted(config, method), row([90, 70, 40]))
    assert tuning(config, method, 200, "cpu").activations == pytest.approx(kept, rel=0.05)


def test_activations_of_a_model_of_twelve_layers_and_of_the_shipped_base(base_folder: Path) -> None:
    for decoder in (Decoder(scaled("gpt_neox", layers=12)), load_decoder(base_folder, dtype=torch.float32)):
        kept = kept_by_autograd(decoder, row([150, 60, 46]))
        assert tuning(decoder.config, "fp32", 256, "cpu").activations == pytest.approx(kept, rel=0.05)


@full_methods
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
@pytest.mark.parametrize("lengths", [[200, 100], [800, 300]])
def test_the_peak_of_a_pass(
    family: str, method: Method, dtype: torch.dtype, lengths: list[int], tmp_path: Path
) -> None:
    """A row of less than one chunk of logits, and one of more; the sums of gradients are there from a pass before."""
    config = scaled(family, width=256, heads=4, kv_heads=4, inner=1024, layers=2, vocab_rows=2048)
    decoder = Decoder(config).to(dtype)
    MasterAdamW(decoder, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0)
    pack = row(lengths, 2048)
    accumulate(decoder, [pack])
    predicted = tuning(config, method, sum(lengths), "cpu")
    peak = peak_of(lambda: accumulate(decoder, [pack]), tmp_path)
    assert predicted.activations + predicted.workspace == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "llama"])
@pytest.mark.parametrize(("batch", "prompt"), [(1, 300), (8, 60), (8, 4)])
def test_the_peak_of_answering(family: str, batch: int, prompt: int, tmp_path: Path) -> None:
    """Drawn so warm that the nucleus is nearly the whole vocabulary."""
    config = scaled(family, layers=2, vocab_rows=8192)
    engine = Engine(fuse(Decoder(config)), 8192, max_batch=batch)
    requests = [Request(range(prompt), 3, Sampling(temperature=100.0)) for _ in range(batch)]
    predicted = answering(config, "fp32", prompt + 3, batch, "cpu")
    peak = peak_of(lambda: engine.run(requests), tmp_path)
    assert predicted.keys_and_values + predicted.workspace == pytest.approx(peak, rel=0.1)


def test_adapters_are_counted_by_the_matrices_of_files() -> None:
    """GPT-NeoX's query_key_value is one matrix with one narrow pair, GPT-J's three are three."""
    width, inner = PYTHIA.width, PYTHIA.inner
    assert adapter_count(PYTHIA) == 32 * 16 * ((width + 3 * width) + 2 * width + 2 * (width + inner))
    width, inner = GPTJ.width, GPTJ.inner
    assert adapter_count(GPTJ) == 28 * 16 * (3 * 2 * width + 2 * width + 2 * (width + inner))


@every_family
def test_adapters_are_as_many_as_are_trained(family: str) -> None:
    config = tiny_decoder(family).config
    layers = [layer for layer in adapted(config, "lora").modules() if isinstance(layer, LoraLinear)]
    pairs = [piece for layer in layers for _, *pair in layer.pieces() for piece in pair]
    assert adapter_count(config) == sum(piece.numel() for piece in pairs)


def test_adapters_and_frozen_weights() -> None:
    lora, qlora = tuning(PYTHIA, "lora", 2048), tuning(PYTHIA, "qlora", 2048)
    adapters = adapter_count(PYTHIA)
    assert lora.weights == 2 * PYTHIA.parameter_count + 4 * adapters
    assert qlora.weights == answering(PYTHIA, "nf4", 2048, 1).weights + 4 * adapters
    for found in (lora, qlora):
        assert (found.masters, found.gradients, found.moments) == (0, 4 * adapters, 8 * adapters)
    assert qlora.total < lora.total < tuning(PYTHIA, "bf16", 2048).total


def test_constants_are_those_of_the_rooms_above() -> None:
    assert memory.PROMPT_TOKENS == PROMPT_TOKENS_PER_PASS
    assert memory.LOSS_CHUNK == CHUNK
    assert quantize_nf4(torch.ones(2, 64)).block == memory.NF4_BLOCK
    assert Adapter().rank == memory.RANK
    assert Adapter().modules == ["all"]
    assert Adapter().dropout > 0


def test_parts_add_up_and_read_as_a_sum() -> None:
    found = tuning(PYTHIA, "lora", 2048)
    assert found.total == sum(found.parts().values())
    assert str(answering(PYTHIA, "bf16", 2048, 1)).startswith("5.17 weights + 0.62 keys and values + 0.")
    assert str(found).endswith(f" = {gib(found.total)} GiB")
    assert "masters" not in str(found)


def test_three_figures() -> None:
    shown = [gib(int(value * 2**30)) for value in (0.044, 5.172, 9.996, 46.53, 99.96, 1345.4)]
    assert shown == ["0.04", "5.17", "10.0", "46.5", "100", "1,345"]
