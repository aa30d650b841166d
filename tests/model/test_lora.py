"""LoRA: beside the weights and merged into them it is the same, and only what should learn learns."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from roslin.errors import InputError
from roslin.model import Decoder, PackedAttention, packed_positions
from roslin.model.adapted import Lora, adapt, chosen_modules, merge, module_names, quantize_blocks, train_rows
from roslin.model.lora import LoraLinear, Part
from roslin.model.nf4_linear import Nf4Linear
from roslin.model.token_rows import RowsEmbedding, RowsHead
from tiny_decoders import FAMILIES, plain_logits, tiny_decoder

IDS = list(range(1, 40))
NEW = [61, 62, 63]


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


@st.composite
def layers(draw: st.DrawFn, kinds: tuple[str, ...] = ("plain", "nf4")) -> LoraLinear:
    """A layer with a LoRA of random numbers on some of its rows."""
    columns = draw(st.integers(1, 40))
    heights = draw(st.lists(st.integers(1, 20), min_size=1, max_size=4))
    chosen = draw(st.lists(st.booleans(), min_size=len(heights), max_size=len(heights)).filter(any))
    source = seeded(draw(st.integers(0, 999)))
    base: nn.Linear | Nf4Linear = nn.Linear(columns, sum(heights), bias=draw(st.booleans()))
    for parameter in base.parameters():
        parameter.data = torch.randn(parameter.shape, generator=source)
    if draw(st.sampled_from(kinds)) == "nf4":
        base = Nf4Linear.from_linear(base)
    starts = [sum(heights[:index]) for index in range(len(heights))]
    parts = [
        Part(f"part{start}", start, start + height, draw(st.integers(1, 5)), draw(st.sampled_from([0.5, 2.0])))
        for start, height, is_chosen in zip(starts, heights, chosen, strict=True)
        if is_chosen
    ]
    layer = LoraLinear(base, draw(st.permutations(parts)))
    for learnt in (layer.A_RI, *layer.B):
        learnt.data = torch.randn(learnt.shape, generator=source)
    return layer


@given(layer=layers(), rows=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_merged_is_the_same_as_separate(layer: LoraLinear, rows: int) -> None:
    x = torch.randn(rows, layer.base.in_features, generator=seeded(rows))
    merged = layer.merged(torch.float32)
    torch.testing.assert_close(merged(x), layer(x), rtol=1e-4, atol=1e-4)
    adapted = torch.zeros(layer.base.out_features, dtype=torch.bool)
    for part in layer.parts:
        adapted[part.start : part.stop] = True
    assert torch.equal(layer(x)[:, ~adapted], layer.base(x)[:, ~adapted])


@given(layer=layers(kinds=("plain",)))
@settings(max_examples=40, deadline=None)
def test_gradients_are_those_of_the_whole_matrix_projected(layer: LoraLinear) -> None:
    """W + s·B·A: the gradient of B is s·G·Aᵀ and that of A is s·Bᵀ·G, G being the gradient of the sum."""
    x = torch.randn(3, layer.base.in_features, generator=seeded(1))
    whole = layer.merged(torch.float32)
    whole.weight.requires_grad_(True)
    for net in (layer, whole):
        net(x).square().sum().backward()
    grad = whole.weight.grad
    assert grad is not None and layer.A_RI.grad is not None and layer.base.weight.grad is None
    grads_of_A = layer.A_RI.grad.split([part.rank for part in layer.parts])
    for (part, A_RI, B_OR), grad_of_A in zip(layer.pieces(), grads_of_A, strict=True):
        rows_OI = part.scaling * grad[part.start : part.stop]
        torch.testing.assert_close(B_OR.grad, rows_OI @ A_RI.T, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(grad_of_A, B_OR.T @ rows_OI, rtol=1e-3, atol=1e-2)


def test_it_starts_as_peft_does_and_adds_nothing() -> None:
    torch.manual_seed(0)
    layer = LoraLinear(nn.Linear(50, 30), [Part("a", 0, 10, 4, 2.0), Part("b", 10, 30, 8, 2.0)])
    layer.start_from(seeded(3))
    again = LoraLinear(nn.Linear(50, 30), layer.parts)
    again.start_from(seeded(3))
    assert torch.equal(layer.A_RI, again.A_RI)
    bound = 1 / math.sqrt(50)  # kaiming_uniform with a = √5, of 50 inputs
    assert 0.9 * bound < layer.A_RI.abs().max() <= bound
    x = torch.randn(5, 50)
    assert torch.equal(layer(x), layer.base(x))


def test_inputs_are_dropped_in_training_alone() -> None:
    layer = LoraLinear(nn.Linear(400, 1, bias=False), [Part("a", 0, 1, 1, 1.0)], dropout=0.25)
    layer.base.weight.data.zero_()
    layer.A_RI.data.fill_(1.0)
    layer.B[0].data.fill_(1.0)
    x = torch.ones(50, 400)
    assert torch.equal(layer.eval()(x), torch.full((50, 1), 400.0))
    dropped = layer.train()(x)
    assert len(dropped.unique()) > 10
    assert dropped.mean().item() == pytest.approx(400, rel=0.02)


def test_scaling() -> None:
    assert Lora(rank=16, alpha=32).scaling == 2
    assert Lora(rank=16, alpha=32, rslora=True).scaling == 8


NAMES = {
    "gpt_neox": ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"],
    "gptj": ["q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


@pytest.mark.parametrize("family", NAMES)
def test_modules_go_by_the_names_of_the_familys_files(family: str) -> None:
    config = tiny_decoder(family).config
    assert module_names(config) == NAMES[family] == chosen_modules(config, ["all"])
    assert chosen_modules(config, [NAMES[family][2], NAMES[family][0]]) == [NAMES[family][0], NAMES[family][2]]
    for wrong in (["all", NAMES[family][0]], ["attention"], ["lm_head"]):
        with pytest.raises(InputError, match=rf"those of {family} are {', '.join(NAMES[family])}"):
            chosen_modules(config, wrong)


def lively(decoder: Decoder, seed: int = 5) -> None:
    """Give B numbers, and the new rows others than they had."""
    source = seeded(seed)
    for name, parameter in decoder.named_parameters():
        if parameter.requires_grad:
            spread = 0.3 if ".B." in name else 0.1
            parameter.data += spread * torch.randn(parameter.shape, generator=source)


def adapted(family: str, new_ids: list[int] | None = None) -> Decoder:
    decoder = tiny_decoder(family)
    adapt(decoder, Lora(rank=4, alpha=8), NEW if new_ids is None else new_ids, seeded(0))
    return decoder


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_starts_as_its_base(family: str) -> None:
    base = plain_logits(tiny_decoder(family), IDS)
    assert torch.equal(plain_logits(adapted(family, new_ids=[]), IDS), base)
    torch.testing.assert_close(plain_logits(adapted(family), IDS), base, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("quantized", [False, True])
def test_a_merged_decoder_equals_the_adapted_one(family: str, tied: bool, quantized: bool) -> None:
    decoder = tiny_decoder(family, tied_head=tied)
    base = plain_logits(decoder, IDS + NEW)
    if quantized:
        quantize_blocks(decoder, torch.device("cpu"))
    adapt(decoder, Lora(rank=4, alpha=8), NEW, seeded(0))
    lively(decoder)
    separate = plain_logits(decoder, IDS + NEW)
    assert (separate - base).abs().max() > 0.5
    merge(decoder)
    torch.testing.assert_close(plain_logits(decoder, IDS + NEW), separate, rtol=1e-4, atol=1e-4)
    assert all(type(layer) is nn.Linear for layer in (decoder.blocks[0].qkv, decoder.blocks[0].up, decoder.head))
    assert all(parameter.requires_grad for parameter in decoder.parameters())
    assert (decoder.head.weight is decoder.embedding.weight) == tied


def test_merging_rounds_once() -> None:
    decoder = tiny_decoder("llama").bfloat16()
    adapt(decoder, Lora(rank=4, alpha=8), NEW, seeded(0))
    lively(decoder)
    layer, rows = decoder.blocks[1].up, decoder.embedding.rows_KD.detach().clone()
    exact = layer.merged(torch.float32).weight
    merge(decoder, torch.float16)
    assert torch.equal(decoder.blocks[1].up.weight, exact.half())
    assert torch.equal(decoder.embedding.weight[NEW], rows.half())
    assert {parameter.dtype for parameter in decoder.parameters()} == {torch.float16}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_was_chosen_learns_and_in_fp32(family: str) -> None:
    decoder = tiny_decoder(family).bfloat16()
    first, second = module_names(decoder.config)[:2]
    adapt(decoder, Lora(rank=2, alpha=2, modules=[second]), NEW, seeded(0))
    learning = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    outer = {"embedding.rows_KD", "head.rows_KD"} | ({"head.biases_K"} if family == "gptj" else set())
    ours = "out" if family == "gpt_neox" else "qkv"
    assert set(learning) == outer | {f"blocks.{n}.{ours}.{x}" for n in range(3) for x in ("A_RI", "B.0")}
    assert {parameter.dtype for parameter in learning.values()} == {torch.float32}
    assert first not in {part.module.rpartition(".")[2] for part in decoder.blocks[0].get_submodule(ours).parts}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "gptj"])
def test_rows_learn_as_they_would_in_the_whole_matrices(family: str, tied: bool) -> None:
    whole, rows = tiny_decoder(family, tied_head=tied), tiny_decoder(family, tied_head=tied)
    rows.requires_grad_(False)
    train_rows(rows, NEW, NEW)
    ids = torch.tensor([*IDS, *NEW, *IDS[:3]])
    for decoder in (whole, rows):
        logits = decoder(ids, packed_positions([len(ids)]), PackedAttention([len(ids)]))
        F.cross_entropy(logits[:-1], ids[1:]).backward()
    assert isinstance(rows.embedding, RowsEmbedding) and isinstance(rows.head, RowsHead)
    torch.testing.assert_close(rows.embedding.rows_KD.grad, whole.embedding.weight.grad[NEW])
    torch.testing.assert_close(rows.head.rows_KD.grad, whole.head.weight.grad[NEW])
    if family == "gptj":
        torch.testing.assert_close(rows.head.biases_K.grad, whole.head.bias.grad[NEW])


def test_the_matrices_show_the_rows_as_they_are_now() -> None:
    decoder = tiny_decoder("gptj", tied_head=True)
    train_rows(decoder, NEW, NEW)
    with torch.no_grad():
        decoder.embedding.rows_KD.fill_(7.0)
        decoder.head.biases_K.fill_(3.0)
    assert decoder.embedding.weight[NEW].unique().tolist() == decoder.head.weight[NEW].unique().tolist() == [7.0]
    assert decoder.head.bias[NEW].unique().tolist() == [3.0]
    assert (decoder.dtype, decoder.device) == (torch.float32, torch.device("cpu"))
    hidden = torch.randn(4, 32)
    torch.testing.assert_close(
        decoder.logits(hidden), F.linear(hidden, decoder.head.weight, decoder.head.bias), rtol=1e-5, atol=1e-5
    )
