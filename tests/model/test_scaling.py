"""Stretched positions equal transformers', for every kind and for sequences short and long."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from roslin.engine import GREEDY, Engine, Request, fuse
from roslin.errors import UsageError
from roslin.model import Decoder, ModelConfig, PackedAttention, load_config, load_decoder, packed_positions
from roslin.model.scaling import scaled
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

Maker = Callable[..., PreTrainedModel]
POSITIONS = 48
SIZES = {"max_position_embeddings": POSITIONS}
# Heads wide enough that YaRN's ramp lies within them.
MAKERS: list[tuple[Maker, dict[str, Any]]] = [
    (tiny_gpt_neox, {"hidden_size": 128, "num_attention_heads": 2, "rotary_pct": 0.25}),
    (tiny_llama, {"head_dim": 32}),
    (tiny_llama, {"head_dim": 32, "kind": "qwen2"}),
]
CHOICES: dict[str, dict[str, Any]] = {
    "linear:2": {"rope_type": "linear", "factor": 2.0},
    "dynamic:3": {"rope_type": "dynamic", "factor": 3.0},
    "yarn:4": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": POSITIONS},
}


@pytest.fixture(params=MAKERS, ids=["gpt_neox", "llama", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    maker, overrides = request.param
    maker(tmp_path, **SIZES, **overrides)
    return tmp_path


def oracle(folder: Path, rope: dict[str, Any]) -> PreTrainedModel:
    """The folder as transformers runs it with these rope parameters, in the spelling of its own configuration."""
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {**config["rope_parameters"], **rope}
    (folder / "config.json").write_text(json.dumps(config))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def written(folder: Path, config: ModelConfig) -> Decoder:
    (folder / "config.json").write_text(json.dumps(config.to_hf(torch.float32)))
    return load_decoder(folder)


def forget_longer(model: PreTrainedModel) -> None:
    """transformers goes on turning as for the longest sequence it has met, until it meets a short one."""
    model(torch.tensor([[1]]), use_cache=False)


@torch.no_grad()
def assert_same(decoder: Decoder, model: PreTrainedModel, length: int, tolerance: float = 1e-5) -> None:
    ids_N = torch.randint(128, (length,), generator=torch.Generator().manual_seed(length))
    ours = decoder(ids_N, packed_positions([length]), PackedAttention([length]))
    forget_longer(model)
    theirs = model(ids_N[None], use_cache=False).logits[0]
    assert theirs.std() > 0.5
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < tolerance


@pytest.mark.parametrize("choice", CHOICES)
def test_logits_equal_transformers(folder: Path, choice: str) -> None:
    config = scaled(load_config(folder), choice)
    assert config.positions == POSITIONS * int(choice[-1])
    model = oracle(folder, CHOICES[choice])
    decoder = written(folder, config)
    assert decoder.config == config
    for length in (5, POSITIONS, POSITIONS + 1, config.positions - 3, 60):
        assert_same(decoder, model, length)


@pytest.mark.parametrize("choice", CHOICES)
def test_transformers_reads_what_is_written(folder: Path, choice: str) -> None:
    config = scaled(load_config(folder), choice)
    decoder = written(folder, config)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert_same(decoder, model, config.positions - 5)


YARNS = [
    {"attention_factor": 0.7},
    {"beta_fast": 20.0, "beta_slow": 2.0},
    {"truncate": False},
    {"mscale": 0.8, "mscale_all_dim": 0.3},
    {"mscale": 0.8},
]


@pytest.mark.parametrize("fields", YARNS, ids="-".join)
def test_every_field_of_yarn(tmp_path: Path, fields: dict[str, Any]) -> None:
    tiny_llama(tmp_path, head_dim=32, max_position_embeddings=POSITIONS)
    model = oracle(tmp_path, {**CHOICES["yarn:4"], **fields})
    decoder = load_decoder(tmp_path)
    assert_same(decoder, model, 150)
    again = written(tmp_path, decoder.config)
    assert again.config == decoder.config
    assert_same(again, model, 150)


def test_dynamic_positions_do_not_depend_on_neighbours(folder: Path) -> None:
    decoder = written(folder, scaled(load_config(folder), "dynamic:3"))
    lengths = [30, 100, 60, 100]
    ids_N = torch.randint(128, (sum(lengths),), generator=torch.Generator().manual_seed(1))
    together = decoder(ids_N, packed_positions(lengths), PackedAttention(lengths)).split(lengths)
    for run, length, found in zip(ids_N.split(lengths), lengths, together, strict=True):
        alone = decoder(run, packed_positions([length]), PackedAttention([length]))
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_the_engine_goes_on_as_transformers_does(folder: Path, choice: str, fused: bool) -> None:
    """Past the original positions, from a prompt below them: with a cache, keys keep the turn that they were given."""
    config = scaled(load_config(folder), choice)
    model = oracle(folder, CHOICES[choice])
    decoder = written(folder, config)
    prompts = [torch.randint(128, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in (40, 11, 60)]
    found = Engine(fuse(decoder) if fused else decoder, 128, 3).run([Request(p, 30, GREEDY) for p in prompts])
    for prompt, completion in zip(prompts, found, strict=True):
        forget_longer(model)
        ids = torch.tensor([prompt])
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, do_sample=False, eos_token_id=None
        )
        assert list(completion.ids) == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("choice", ["yarn", "yarn:", "yarn:x", "yarn:0.5", "yarn:nan", "llama3:2", "linear=2", ""])
def test_what_is_no_scaling_is_refused(folder: Path, choice: str) -> None:
    with pytest.raises(UsageError, match="linear, dynamic, yarn"):
        scaled(load_config(folder), choice)


def test_positions_are_stretched_once(folder: Path) -> None:
    with pytest.raises(UsageError, match="stretched already"):
        scaled(scaled(load_config(folder), "linear:2"), "linear:2")


def test_gptj_has_no_field_for_it(tmp_path: Path) -> None:
    tiny_gptj(tmp_path)
    with pytest.raises(UsageError, match="GPT-J"):
        scaled(load_config(tmp_path), "linear:2")
