"""Memory of tuning by part, against what torch holds: weights, moments, what passes keep, and their peaks."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from allocations import allocated, bytes_of, peak_of, row, scaled
from roslin import memory
from roslin.memory import IN_HALVES, Gradients, Method, Moments, Settings, adapter_count, answering, gib, tuning
from roslin.memory.layers import nf4_bytes
from roslin.model import Decoder, ModelConfig, load_decoder
from roslin.model.adapted import Lora, adapt, quantize_blocks
from roslin.model.lora import LoraLinear
from roslin.model.published import PUBLISHED
from roslin.tune.held_out import hidden_of_answers
from roslin.tune.loss import CHUNK, GPU_CHUNK
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import Pack
from roslin.tune.passes import recompute
from roslin.tune.recipe import Adapter
from roslin.tune.step import accumulate
from tiny_decoders import FAMILIES, tiny_decoder

PYTHIA = PUBLISHED["EleutherAI/pythia-2.8b"].config
GPTJ = PUBLISHED["EleutherAI/gpt-j-6B"].config

every_family = pytest.mark.parametrize("family", FAMILIES)
full_methods = pytest.mark.parametrize(
    ("method", "dtype"),
    [
        ("fp32", torch.float32),
        ("bf16", torch.bfloat16),
        pytest.param("fp16", torch.float16, marks=pytest.mark.full),  # a CPU has no fast products in it
    ],
)


def ready(config: ModelConfig, dtype: torch.dtype, recomputed_layers: int = 0) -> Decoder:
    """A decoder whose passes run as a CPU runs them, with tables and gradients as they are after a pass before."""
    decoder = Decoder(config).to(dtype)
    recompute(decoder, recomputed_layers)
    for parameter in decoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    hidden_of_answers(decoder, row([3]))
    return decoder


def forward(decoder: Decoder, pack: Pack) -> Callable[[], object]:
    return lambda: hidden_of_answers(decoder, pack)


@every_family
@full_methods
@pytest.mark.parametrize("lengths", [[90, 70, 40], [1, 150]])
def test_activations_are_what_a_forward_pass_leaves(
    family: str, method: Method, dtype: torch.dtype, lengths: list[int], tmp_path: Path
) -> None:
    """Besides its result, the hidden states at answers."""
    config = scaled(family, layers=3)
    pack = row(lengths)
    left = allocated(forward(ready(config, dtype), pack), tmp_path).left
    left -= pack.answer_count * config.width * dtype.itemsize
    assert tuning(config, method, sum(lengths), "cpu").activations == pytest.approx(left, rel=0.05)


@full_methods
@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "llama"])
@pytest.mark.parametrize("recomputed", [1, 2, 4])
def test_activations_of_recomputed_layers(
    family: str, method: Method, dtype: torch.dtype, recomputed: int, tmp_path: Path
) -> None:
    config = scaled(family, layers=4)
    pack = row([90, 70, 40])
    left = allocated(forward(ready(config, dtype, recomputed), pack), tmp_path).left
    left -= pack.answer_count * config.width * dtype.itemsize
    predicted = tuning(config, method, 200, "cpu", Settings(recomputed_layers=recomputed)).activations
    assert predicted == pytest.approx(left, rel=0.05)


@full_methods
@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "llama"])
@pytest.mark.parametrize("lengths", [[200, 100], [800, 300]])
@pytest.mark.parametrize("recomputed", [0, 2])
def test_the_peak_of_a_pass(
    family: str, method: Method, dtype: torch.dtype, lengths: list[int], recomputed: int, tmp_path: Path
) -> None:
    """A row of less than one chunk of logits, and one of more; gradients are there from a pass before."""
    config = scaled(family, width=256, heads=4, kv_heads=4, inner=1024, layers=2, vocab_rows=2048)
    decoder = ready(config, dtype, recomputed)
    pack = row(lengths, 2048)
    settings = Settings(gradients="bf16", recomputed_layers=recomputed)
    predicted = tuning(config, method, sum(lengths), "cpu", settings)
    peak = peak_of(lambda: accumulate(decoder, [pack], pack.answer_count), tmp_path)
    assert predicted.activations + predicted.workspace == pytest.approx(peak, rel=0.05)


@every_family
@full_methods
@pytest.mark.parametrize("moments", ["fp32", "bf16", "8bit"])
@pytest.mark.parametrize("gradients", ["fp32", "bf16"])
def test_masters_gradients_and_moments_are_those_of_the_optimizer(
    family: str, method: Method, dtype: torch.dtype, moments: Moments, gradients: Gradients
) -> None:
    """128 wide, so that all matrices have 8-bit moments but one, whose rows are 192."""
    decoder = tiny_decoder(family, width=128, inner=192).to(dtype)
    optimizer = MasterAdamW(
        decoder, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0, moments=moments, gradients=gradients
    )
    everything = torch.stack([parameter.float().sum() for parameter in decoder.parameters()]).sum()
    everything.backward()  # type: ignore[no-untyped-call]
    held = [*optimizer.sums.values(), *(p.grad for p in decoder.parameters() if p.grad is not None)]
    state = optimizer.state()
    predicted = tuning(decoder.config, method, 29, "cpu", Settings(moments=moments, gradients=gradients))
    assert predicted.weights == bytes_of(list(decoder.parameters()))
    assert predicted.gradients == bytes_of(held)
    assert predicted.masters == bytes_of([tensor for name, tensor in state.items() if name.endswith("/low")])
    assert predicted.moments == bytes_of([tensor for name, tensor in state.items() if "exp_avg" in name])


def test_bytes_a_parameter() -> None:
    """16 where all is exact and held; 8.06 with 8-bit moments and bf16 gradients; 6.06 without gradients."""
    count = PYTHIA.parameter_count
    lean = Settings(moments="8bit", gradients="bf16")
    for settings, each in ((Settings(), 16), (lean, 8.06), (replace(lean, in_backward=True), 6.06)):
        for method in IN_HALVES:
            found = tuning(PYTHIA, method, 2048, settings=settings)
            held = found.weights + found.masters + found.gradients + found.moments
            assert held / count == pytest.approx(each, abs=0.01)


def test_without_bf16_a_gpu_copies_what_attention_gathered() -> None:
    """Nothing else of a pass in fp16 is other than one in bf16."""
    kept = {method: tuning(PYTHIA, method, 2048).activations for method in IN_HALVES}
    assert kept["fp16"] - kept["bf16"] == 2 * 2048 * PYTHIA.query_rows * PYTHIA.layers
    beside = {way: tuning(PYTHIA, "lora", 2048, settings=Settings(adapters_beside=way)) for way in IN_HALVES}
    assert beside["fp16"].activations - beside["bf16"].activations == 2 * 2048 * PYTHIA.query_rows * PYTHIA.layers


def adapted(config: ModelConfig, method: Method) -> Decoder:
    """A decoder with an adapter of the rank that is predicted for, in training: it drops some of what it reads."""
    decoder = Decoder(config).to(torch.bfloat16)
    if method == "qlora":
        quantize_blocks(decoder, torch.device("cpu"))
    adapt(decoder, Lora(memory.RANK, 32, dropout=0.05), [], torch.Generator().manual_seed(0))
    return decoder.train()


@every_family
@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_activations_of_adapters(family: str, method: Method, tmp_path: Path) -> None:
    config = scaled(family, layers=3)
    pack = row([90, 70, 40])
    decoder = adapted(config, method)
    left = allocated(forward(decoder, pack), tmp_path).left
    left -= pack.answer_count * config.width * 2
    assert tuning(config, method, 200, "cpu").activations == pytest.approx(left, rel=0.05)


def test_activations_of_a_model_of_twelve_layers_and_of_the_shipped_base(base_folder: Path, tmp_path: Path) -> None:
    for decoder in (Decoder(scaled("gpt_neox", layers=12)), load_decoder(base_folder, dtype=torch.float32)):
        pack = row([150, 60, 46])
        left = allocated(forward(decoder, pack), tmp_path).left - pack.answer_count * decoder.config.width * 4
        assert tuning(decoder.config, "fp32", 256, "cpu").activations == pytest.approx(left, rel=0.05)


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
    assert qlora.weights == nf4_bytes(PYTHIA) + 4 * adapters
    for found in (lora, qlora):
        assert (found.masters, found.gradients, found.moments) == (0, 4 * adapters, 8 * adapters)
    assert qlora.total < lora.total < tuning(PYTHIA, "bf16", 2048).total


def test_constants_are_those_of_the_rooms_above() -> None:
    assert (memory.LOSS_CHUNK, memory.GPU_LOSS_CHUNK) == (CHUNK, GPU_CHUNK)
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
