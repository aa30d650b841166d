"""Every family through the whole way: loaded, packed, tuned, saved, and answering as transformers does from the folder.

The models have random weights, but the head sizes, biases, norms, activations and tied heads of the real ones.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from roslin.answer import Roslin
from roslin.model import PackedAttention, load_decoder, packed_positions
from roslin.tokens import Tokenizer
from roslin.tune import Recipe
from roslin.workflows.tune import tune
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

Maker = Callable[..., PreTrainedModel]
SMALL = {"vocab_size": 8192, "num_hidden_layers": 2}
FAMILIES: dict[str, tuple[Maker, dict[str, Any]]] = {
    "pythia": (tiny_gpt_neox, {"hidden_size": 128, "num_attention_heads": 2, "rotary_pct": 0.25}),
    "gpt-neox-20b": (
        tiny_gpt_neox,
        {"hidden_size": 192, "num_attention_heads": 2, "rotary_pct": 0.25, "hidden_act": "gelu_fast"},
    ),
    "gpt-j": (tiny_gptj, {"n_embd": 512, "n_head": 2, "rotary_dim": 64}),
    "llama": (tiny_llama, {}),
    "smollm2": (tiny_llama, {"num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": True}),
    "mistral": (tiny_llama, {"kind": "mistral", "sliding_window": 40}),
    "qwen2": (tiny_llama, {"kind": "qwen2", "tie_word_embeddings": True}),
    "qwen3": (tiny_llama, {"kind": "qwen3", "head_dim": 20}),
}


@pytest.fixture(params=FAMILIES)
def base(request: pytest.FixtureRequest, base_folder: Path, tmp_path: Path) -> Path:
    maker, overrides = FAMILIES[request.param]
    sizes = {"n_layer" if maker is tiny_gptj and key == "num_hidden_layers" else key: n for key, n in SMALL.items()}
    maker(tmp_path / "base", tokenizer=base_folder, **sizes, **overrides)
    return tmp_path / "base"


def tuned(base: Path, records: Path, **changes: Any) -> Path:
    values = {
        "model": str(base),
        "records": str(records),
        "output": str(base.parent / "run"),
        "held_out": {"fraction": 0.2},
        "epochs": 1,
        "records_per_update": 24,
        "learning_rate": 1e-3,
        "max_length": 256,
        "row_length": 256,
        "evaluate_every": 100,
        "precision": "fp32",
        "tensorboard": False,
    }
    return tune(Recipe.parse(values | changes), restart=False, console=Console(file=io.StringIO()))


def test_the_whole_way(base: Path, some_starter_records: Path) -> None:
    folder = tuned(base, some_starter_records)
    losses = held_out_losses(base.parent / "run" / "log.jsonl")
    assert losses[-1] < losses[0] - 0.2

    assert_same_logits(folder)
    assert_same_answer(folder)
    assert Roslin.load(str(folder)).score("What is Roslin?", "A tool.").loss > 0


@torch.no_grad()
def assert_same_logits(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids_N = torch.tensor(AutoTokenizer.from_pretrained(folder)("A question about stones.").input_ids)
    decoder = load_decoder(folder)
    attend = PackedAttention([len(ids_N)], decoder.config.window)
    ours, theirs = decoder(ids_N, packed_positions([len(ids_N)]), attend), model(ids_N[None]).logits[0]
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5


def assert_same_answer(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    roslin = Roslin.load(str(folder))
    answer = roslin.answer("What is Roslin?", greedy=True, max_new_tokens=24)
    prompt = torch.tensor([Tokenizer.load(folder).prompt_ids("What is Roslin?")])
    given = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": 24}
    said = model.generate(prompt, eos_token_id=roslin.tokenizer.end_id, **given)[0, prompt.shape[1] :].tolist()
    assert list(answer.tokens) == [token for token in said if token != roslin.tokenizer.end_id]


def held_out_losses(log: Path) -> list[float]:
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["held_out"] for line in lines if line["kind"] == "evaluation"]
