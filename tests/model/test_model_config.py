"""The configuration in both families' spelling: what is read, what is refused, and that all faults are told at once."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

from roslin.errors import InputError
from roslin.model import ModelConfig

# config.json as published by EleutherAI for pythia-6.9b and gpt-j-6B, but for keys that say nothing of the model.
PYTHIA: dict[str, Any] = {
    "model_type": "gpt_neox",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_parallel_residual": True,
    "vocab_size": 50432,
}
GPTJ: dict[str, Any] = {
    "model_type": "gptj",
    "activation_function": "gelu_new",
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "layer_norm_epsilon": 1e-05,
    "n_embd": 4096,
    "n_head": 16,
    "n_inner": None,
    "n_layer": 28,
    "n_positions": 2048,
    "rotary": True,
    "rotary_dim": 64,
    "tie_word_embeddings": False,
    "vocab_size": 50400,
}


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        ModelConfig.from_hf(values, "there/config.json")
    assert str(caught.value).startswith("there/config.json")
    return str(caught.value)


def test_pythia() -> None:
    assert ModelConfig.from_hf(PYTHIA) == ModelConfig(
        family="gpt_neox",
        width=4096,
        layers=32,
        heads=32,
        kv_heads=32,
        head_dim=128,
        inner=16384,
        vocab_rows=50432,
        positions=2048,
        rotary_dims=32,
        rotary_base=10000.0,
        rotary_interleaved=False,
        activation="gelu",
        norm_eps=1e-5,
        shared_norm=False,
        parallel_residual=True,
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        head_bias=False,
        tied_head=False,
        eos_id=0,
        bos_id=0,
    )


def test_gptj() -> None:
    config = ModelConfig.from_hf(GPTJ)
    assert (config.width, config.layers, config.heads, config.head_dim, config.inner) == (4096, 28, 16, 256, 16384)
    assert (config.rotary_dims, config.rotary_interleaved, config.activation) == (64, True, "gelu_new")
    assert (config.shared_norm, config.head_bias, config.qkv_bias) == (True, True, False)


def test_published_parameter_counts() -> None:
    # The model cards' figures: pythia-6.9b 6,857,302,016; gpt-j-6B 6,050,882,784.
    assert ModelConfig.from_hf(PYTHIA).parameter_count == 6_857_302_016
    assert ModelConfig.from_hf(GPTJ).parameter_count == 6_050_882_784


@pytest.mark.parametrize("values", [PYTHIA, GPTJ])
def test_writing_and_reading_changes_nothing(values: dict[str, Any]) -> None:
    config = ModelConfig.from_hf(values)
    written = json.loads(json.dumps(config.to_hf(torch.bfloat16)))
    assert written["torch_dtype"] == "bfloat16"
    assert ModelConfig.from_hf(written) == config


@given(head_dim=st.integers(2, 300), data=st.data())
@settings(max_examples=200, deadline=None)
def test_every_number_of_rotary_dimensions_survives_being_written_as_a_fraction(
    head_dim: int, data: st.DataObject
) -> None:
    dims = 2 * data.draw(st.integers(1, head_dim // 2))
    sizes = {"hidden_size": 4 * head_dim, "num_attention_heads": 4}
    exact = ModelConfig.from_hf({**PYTHIA, **sizes, "rotary_pct": (dims + 0.5) / head_dim if dims < head_dim else 1.0})
    assert exact.rotary_dims == dims
    assert ModelConfig.from_hf(exact.to_hf(torch.float32)).rotary_dims == dims


def test_old_keys_are_what_new_transformers_reads_too() -> None:
    config = ModelConfig.from_hf({**PYTHIA, "rotary_pct": 0.5, "rotary_emb_base": 5000})
    theirs = GPTNeoXConfig.from_dict(config.to_hf(torch.float16))
    assert theirs.dtype == torch.float16
    frequencies = GPTNeoXRotaryEmbedding(theirs).inv_freq
    assert len(frequencies) == 32
    assert frequencies[1].item() == pytest.approx(5000 ** (-2 / 64))


def test_absent_keys_mean_what_transformers_takes_them_to_mean() -> None:
    sizes = ("model_type", "hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size")
    config = ModelConfig.from_hf({key: PYTHIA[key] for key in sizes})
    theirs = GPTNeoXConfig()
    turned = 2 * len(GPTNeoXRotaryEmbedding(theirs).inv_freq)
    assert config.rotary_dims / config.head_dim == turned * theirs.num_attention_heads / theirs.hidden_size
    assert config.positions == theirs.max_position_embeddings
    assert config.norm_eps == theirs.layer_norm_eps
    assert config.qkv_bias == config.out_bias == theirs.attention_bias
    assert (config.bos_id, config.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)


@pytest.mark.parametrize(("written", "read"), [(None, None), (7, 7), ([5, 6], 5)])
def test_end_tokens(written: object, read: int | None) -> None:
    assert ModelConfig.from_hf({**PYTHIA, "eos_token_id": written}).eos_id == read


@pytest.mark.parametrize("model_type", ["bert", None, 3, ["gpt_neox"]])
def test_other_families_are_refused_by_name(model_type: object) -> None:
    text = refusal({**PYTHIA, "model_type": model_type})
    assert repr(model_type) in text
    assert "gpt_neox, gptj" in text


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hidden_act": "relu"}, "hidden_act: is 'relu'; it must be one of gelu"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_type: is 'longrope'; it must be one of default"),
        ({"rope_scaling": {"type": "linear"}}, "factor: is missing; it must be a number above 0"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": "x"}}, "factor: is 'x'; it must be a number above 0"),
        ({"rope_scaling": {"type": "dynamic", "factor": float("inf")}}, "factor: is inf; it must be a number above 0"),
        ({"rope_parameters": 3}, "rope_parameters: is 3; it must be an object"),
        ({"rope_parameters": {"rope_theta": "x"}}, "rope_theta: is 'x'; it must be a number above 0"),
        ({"rotary_pct": 0.04}, "rotary_pct: turns 5 of a head's 128 dimensions"),
        ({"rotary_pct": 1.5}, "rotary_pct: is 1.5; it must be at most 1"),
        ({"rope_parameters": {"partial_rotary_factor": 1e308}}, "partial_rotary_factor: is 1e+308; it must be at most"),
        ({"hidden_size": 10**14}, "hidden_size: is 100000000000000; it must be at most 16,777,216"),
        ({"num_attention_heads": 30}, "hidden_size: 4096 does not divide by num_attention_heads 30"),
        ({"vocab_size": None}, "vocab_size: is missing; it must be a whole number above 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: is 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers: is True"),
        ({"use_parallel_residual": "yes"}, "use_parallel_residual: is 'yes'; it must be true or false"),
        ({"eos_token_id": "</s>"}, "eos_token_id: is '</s>'; it must be a token id"),
    ],
)
def test_values_that_cannot_be_run_are_refused_by_name(change: dict[str, Any], fault: str) -> None:
    assert fault in refusal({**PYTHIA, **change})


def test_gptj_needs_its_rotary_dimensions() -> None:
    assert "rotary_dim: is missing" in refusal({**GPTJ, "rotary_dim": None})


def test_all_faults_are_told_at_once() -> None:
    text = refusal({**PYTHIA, "hidden_act": "relu", "vocab_size": -1, "layer_norm_eps": "tiny", "rotary_emb_base": 0})
    for key in ("hidden_act", "vocab_size", "layer_norm_eps", "rotary_emb_base"):
        assert f"\n  {key}: " in text
    assert text.count("\n") == 4


def test_the_shipped_base_is_written_as_it_came(base_folder: Path) -> None:
    values = json.loads((base_folder / "config.json").read_text())
    written = ModelConfig.from_hf(values).to_hf(torch.bfloat16)
    assert {key: written.get(key) for key in values if key != "initializer_range"} == {
        key: value for key, value in values.items() if key != "initializer_range"
    }
