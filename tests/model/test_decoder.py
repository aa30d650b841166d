"""The decoder equals transformers, logit for logit, in every shape of the families."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from roslin.model import Decoder, PackedAttention, load_decoder, packed_positions, padded_logits
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

Maker = Callable[..., PreTrainedModel]
TOLERANCE = 1e-5

LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}

SHAPES: list[tuple[Maker, dict[str, Any]]] = [
    (tiny_gpt_neox, {}),
    (tiny_gpt_neox, {"hidden_size": 160, "num_attention_heads": 2, "rotary_pct": 0.25}),  # Pythia 2.8b's head_dim 80
    (tiny_gpt_neox, {"hidden_size": 192, "num_attention_heads": 2, "rotary_pct": 0.25}),  # gpt-neox-20b's 96
    (tiny_gpt_neox, {"vocab_size": 131, "intermediate_size": 77, "num_hidden_layers": 1}),
    (tiny_gpt_neox, {"use_parallel_residual": False}),
    (tiny_gpt_neox, {"attention_bias": False, "rotary_pct": 1.0, "rotary_base": 500.0}),
    (tiny_gpt_neox, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    (tiny_gpt_neox, {"hidden_act": "gelu_fast", "tie_word_embeddings": True}),
    (tiny_gptj, {}),
    (tiny_gptj, {"n_embd": 512, "n_head": 2, "rotary_dim": 64, "n_layer": 2}),  # GPT-J's head_dim 256, rotary 64
    (tiny_gptj, {"vocab_size": 131, "n_inner": 77, "rotary_dim": 12}),
    (tiny_gptj, {"activation_function": "gelu", "layer_norm_epsilon": 1e-3}),
    (tiny_gptj, {"tie_word_embeddings": True}),
    (tiny_llama, {}),
    (tiny_llama, {"num_key_value_heads": 4, "vocab_size": 131, "intermediate_size": 77}),  # Llama 1 and 2
    (tiny_llama, {"num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True}),
    (tiny_llama, {"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 24}),  # uneven
    (tiny_llama, {"tie_word_embeddings": True, "rope_theta": 100000.0}),  # SmolLM2
    (tiny_llama, {"rope_scaling": {**LLAMA3, "rope_type": "llama3"}, "rope_theta": 500000.0}),  # Llama 3.1 and later
    (tiny_llama, {"hidden_act": "gelu_pytorch_tanh"}),
    (tiny_llama, {"kind": "mistral", "sliding_window": None}),
    (tiny_llama, {"kind": "mistral", "sliding_window": 9, "head_dim": 20}),  # Mistral 7B v0.1; Nemo's wider heads
    (tiny_llama, {"kind": "qwen2"}),  # Qwen2 and 2.5
    (tiny_llama, {"kind": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0}),
    (tiny_llama, {"kind": "qwen2", "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}),
    (tiny_llama, {"kind": "qwen2", "use_sliding_window": True, "sliding_window": None, "max_window_layers": 2}),
    (tiny_llama, {"kind": "qwen3", "head_dim": 20}),
    (tiny_llama, {"kind": "qwen3", "tie_word_embeddings": True, "attention_bias": True}),
]
MAKERS: dict[str, Maker] = {"gpt_neox": tiny_gpt_neox, "gptj": tiny_gptj, "llama": tiny_llama}
NAMES = [f"{maker.__name__}-{'-'.join(map(str, overrides)) or 'plain'}" for maker, overrides in SHAPES]


@pytest.fixture(params=SHAPES, ids=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Decoder, PreTrainedModel]:
    maker, overrides = request.param
    oracle = maker(tmp_path, **overrides)
    return load_decoder(tmp_path), oracle


@pytest.fixture(scope="module", params=[tiny_gpt_neox, tiny_gptj, tiny_llama])
def plain_pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Decoder, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("model")
    oracle = request.param(folder)
    return load_decoder(folder), oracle


def random_ids(rows: int, columns: int, vocabulary: int) -> torch.Tensor:
    return torch.randint(vocabulary, (rows, columns), generator=torch.Generator().manual_seed(rows * columns))


@torch.no_grad()
def oracle_logits(oracle: PreTrainedModel, ids_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    logits: torch.Tensor = oracle(ids_BT, attention_mask=mask_BT, position_ids=positions_BT).logits
    return logits


def assert_equal_logits(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.5, "the oracle's logits must be lively, or equality means little"
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < tolerance


@torch.no_grad()
def test_logits_equal_transformers(pair: tuple[Decoder, PreTrainedModel]) -> None:
    decoder, oracle = pair
    ids_BT = random_ids(3, 37, decoder.config.vocab_rows)
    whole = torch.ones_like(ids_BT)
    assert_equal_logits(padded_logits(decoder, ids_BT, whole), oracle_logits(oracle, ids_BT, whole))


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_batches_equal_transformers(pair: tuple[Decoder, PreTrainedModel], side: str) -> None:
    decoder, oracle = pair
    lengths = [29, 1, 13, 22]
    ids_BT = random_ids(len(lengths), max(lengths), decoder.config.vocab_rows)
    mask_BT = torch.zeros_like(ids_BT)
    for row, length in zip(mask_BT, lengths, strict=True):
        row[slice(-length, None) if side == "left" else slice(length)] = 1
    ours, theirs = padded_logits(decoder, ids_BT, mask_BT), oracle_logits(oracle, ids_BT, mask_BT)
    kept = mask_BT.bool()
    assert_equal_logits(ours[kept], theirs[kept])
    assert not ours[~kept].any()


@torch.no_grad()
def test_a_row_of_padding_alone_gives_zeros(plain_pair: tuple[Decoder, PreTrainedModel]) -> None:
    decoder, _ = plain_pair
    ids_BT = random_ids(2, 5, 128)
    mask_BT = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    logits_BTV = padded_logits(decoder, ids_BT, mask_BT)
    assert not logits_BTV[0].any()
    assert logits_BTV[1].any()
    assert not padded_logits(decoder, ids_BT, torch.zeros_like(ids_BT)).any()


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_packed_rows_equal_the_rows_one_by_one(
    plain_pair: tuple[Decoder, PreTrainedModel], lengths: list[int], seed: int
) -> None:
    decoder, oracle = plain_pair
    ids_N = torch.randint(128, (sum(lengths),), generator=torch.Generator().manual_seed(seed))
    packed_NV = decoder(ids_N, packed_positions(lengths), PackedAttention(lengths, decoder.config.window))
    alone = [oracle(run[None]).logits[0] for run in ids_N.split(lengths)]
    assert_equal_logits(packed_NV, torch.cat(alone))


@torch.no_grad()
def test_nothing_leaks_between_packed_runs(plain_pair: tuple[Decoder, PreTrainedModel]) -> None:
    decoder, _ = plain_pair
    lengths = [11, 20, 9]
    ids_N = random_ids(1, sum(lengths), 128)[0]
    other_N = ids_N.clone()
    other_N[:11] = other_N[:11].flip(0) + 1 - (other_N[:11].flip(0) == 127).long()
    other_N[31:] = 5
    attend = PackedAttention(lengths)
    before, after = (decoder(ids, packed_positions(lengths), attend) for ids in (ids_N, other_N))
    assert torch.equal(before[11:31], after[11:31])
    assert not torch.equal(before[:11], after[:11])


def test_gradients_equal_transformers(pair: tuple[Decoder, PreTrainedModel]) -> None:
    decoder, oracle = pair
    lengths = [17, 30, 5]
    vocabulary = decoder.config.vocab_rows
    ids_N = random_ids(1, sum(lengths), vocabulary)[0]
    weight_NV = torch.randn(len(ids_N), vocabulary, generator=torch.Generator().manual_seed(1))
    (
        decoder(ids_N, packed_positions(lengths), PackedAttention(lengths, decoder.config.window)) * weight_NV
    ).sum().backward()
    theirs = torch.cat([oracle(run[None]).logits[0] for run in ids_N.split(lengths)])
    (theirs * weight_NV).sum().backward()

    missing = [name for name, parameter in decoder.named_parameters() if parameter.grad is None]
    assert not missing
    assert_close(decoder.embedding.weight.grad, oracle.get_input_embeddings().weight.grad)
    assert_close(decoder.head.weight.grad, oracle.get_output_embeddings().weight.grad)
    assert_close(block_gradients(decoder), oracle_block_gradients(oracle, decoder))


def assert_close(ours: torch.Tensor | None, theirs: torch.Tensor | None) -> None:
    assert ours is not None
    assert theirs is not None
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 5e-5


def block_gradients(decoder: Decoder) -> torch.Tensor:
    """The gradient of the first layer's queries, keys and values, [H + 2 G, K, D]."""
    gradient = decoder.blocks[0].qkv.weight.grad
    return gradient.view(-1, decoder.config.head_dim, decoder.config.width)


def oracle_block_gradients(oracle: PreTrainedModel, decoder: Decoder) -> torch.Tensor:
    config = decoder.config
    if config.family == "gpt_neox":
        fused = oracle.gpt_neox.layers[0].attention.query_key_value.weight.grad
        return fused.view(config.heads, 3, config.head_dim, config.width).transpose(0, 1).flatten(0, 1)
    attention = oracle.transformer.h[0].attn if config.family == "gptj" else oracle.model.layers[0].self_attn
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    return torch.cat([part.weight.grad for part in parts]).view(-1, config.head_dim, config.width)


@torch.no_grad()
def test_greedy_tokens_equal_transformers_for_256_steps(plain_pair: tuple[Decoder, PreTrainedModel]) -> None:
    decoder, oracle = plain_pair
    prompt = random_ids(1, 12, 128)
    ids_N = prompt[0]
    for _ in range(256):
        hidden_ND = decoder.hidden(ids_N, packed_positions([len(ids_N)]), PackedAttention([len(ids_N)]))
        ids_N = torch.cat([ids_N, decoder.logits(hidden_ND[-1:]).argmax(-1)])
    theirs = oracle.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=256, do_sample=False, eos_token_id=None
    )[0]
    assert ids_N.tolist() == theirs.tolist()
    assert len(set(ids_N[12:].tolist())) > 3, "tokens that repeat prove little"


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("maker", [tiny_gpt_neox, tiny_gptj])
def test_half_precision_is_as_near_to_fp32_as_transformers(tmp_path: Path, maker: Maker, dtype: torch.dtype) -> None:
    exact = maker(tmp_path / "exact")
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "exact", dtype=dtype)
    ids_BT = random_ids(2, 40, 128)
    mask_BT = torch.ones_like(ids_BT)
    reference = exact(ids_BT).logits
    ours = padded_logits(load_decoder(tmp_path / "exact", dtype=dtype), ids_BT, mask_BT)
    assert ours.dtype == dtype
    our_error = (ours.float() - reference).pow(2).mean().sqrt()
    their_error = (oracle(ids_BT).logits.float() - reference).pow(2).mean().sqrt()
    assert our_error < 1.5 * their_error


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[24], [7, 17], [12, 12]])
def test_fp16_scores_beyond_its_range_do_not_overflow(lengths: list[int]) -> None:
    q, k, v = torch.randn(3, 24, 2, 64, generator=torch.Generator().manual_seed(0)).half()
    q, k = q * 100, k * 100
    largest = torch.einsum("nhk,mhk->hnm", q.float(), k.float()).abs().max()
    assert largest > 2 * torch.finfo(torch.float16).max
    attend = PackedAttention(lengths)
    assert_close(attend(0, q, k, v).float(), attend(0, q.float(), k.float(), v.float()).half().float() + 1e-9)


@torch.no_grad()
def test_the_shipped_base_equals_transformers(base_folder: Path) -> None:
    oracle = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    decoder = load_decoder(base_folder, dtype=torch.float32)
    ids_BT = random_ids(2, 150, 8192)
    whole = torch.ones_like(ids_BT)
    assert_equal_logits(padded_logits(decoder, ids_BT, whole), oracle_logits(oracle, ids_BT, whole))


def test_the_tables_follow_a_change_of_dtype(plain_pair: tuple[Decoder, PreTrainedModel], tmp_path: Path) -> None:
    MAKERS[plain_pair[0].config.family](tmp_path)
    ids_N, attend = random_ids(1, 9, 128)[0], PackedAttention([9])
    decoder = load_decoder(tmp_path)
    single = decoder(ids_N, packed_positions([9]), attend)
    double = decoder.double()(ids_N, packed_positions([9]), attend)
    assert double.dtype == torch.float64
    assert_close(single.double(), double)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_lengths_met() -> None:
    """As in a run on packed rows, no two of which are of one length."""
    code = """
import torch
from tiny_decoders import tiny_decoder
decoder = tiny_decoder("gpt_neox")
weight = torch.randn(1152, 384, dtype=torch.bfloat16, requires_grad=True)
for length in range(500, 900):
    row = torch.randn(length, 384, dtype=torch.bfloat16, requires_grad=True)
    torch.nn.functional.linear(row, weight).sum().backward()
    if length in (699, 899):
        print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")][0], flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    half, whole = (int(kilobytes) / 1024 for kilobytes in done.stdout.split())
    assert whole - half < 100


def test_tables_grow_with_the_positions_that_are_asked_for(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path, max_position_embeddings=40_000)
    decoder = load_decoder(tmp_path)
    ids = torch.tensor([5, 7])
    for last in (1, 8191, 8192, 20_000, 39_999, 3):
        positions = torch.tensor([0, last])
        with torch.inference_mode():
            expected = model(ids[None], position_ids=positions[None]).logits[0]
            found = decoder(ids, positions, PackedAttention([2]))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(IndexError):
        decoder(ids, torch.tensor([0, 40_000]), PackedAttention([2]))
