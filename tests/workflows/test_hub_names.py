"""The nine models of Dolly's table by their hub names: loaded, tuned, asked and scored from a hub's cache.

Each stands there as transformers writes it, with the published configuration made narrow and shallow: the heads'
width, the turning share of it, activations, biases and norms are the real ones, the weights random.
"""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from rich.console import Console
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from roslin import prompt
from roslin.answer import Roslin
from roslin.model import load_config
from roslin.model.published import PUBLISHED
from roslin.tokens import Tokenizer
from roslin.tune import Recipe
from roslin.workflows.tune import tune
from tiny import enliven
from weight_folders import as_bin

COMMIT = "c" * 40
NINE = [name for name in PUBLISHED if "/" in name]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def narrow(values: dict[str, Any]) -> dict[str, Any]:
    """Two heads of the published width, two layers."""
    if values["model_type"] == "gptj":
        return values | {"n_embd": 512, "n_head": 2, "n_layer": 2, "n_inner": 64, "vocab_size": 8256}
    width = 2 * values["hidden_size"] // values["num_attention_heads"]
    sizes = {"hidden_size": width, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 64}
    return values | sizes | {"vocab_size": 8256}


def put_into_cache(cache: Path, name: str, base_folder: Path) -> Path:
    """As the hub's client lays it out: weights as .bin, as all nine were first published."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT
    values = narrow(dict(PUBLISHED[name].values))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values), dtype=torch.float32)
    enliven(model)
    model.save_pretrained(folder)
    as_bin(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(base_folder / "tokenizer.json"), eos_token="<|endoftext|>")
    if "dolly" in name:
        keys = prompt.FIRST_SPECIAL_KEYS if "v1" in name else prompt.SPECIAL_KEYS
        tokenizer.add_special_tokens({"additional_special_tokens": list(keys)})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", NINE)
@pytest.mark.filterwarnings("ignore:This model's tokenizer has neither")
def test_by_hub_name(name: str, cache: Path, base_folder: Path, some_starter_records: Path, tmp_path: Path) -> None:
    folder = put_into_cache(cache, name, base_folder)
    published, here = PUBLISHED[name].config, load_config(folder)
    for field in (
        "family",
        "head_dim",
        "rotary_dims",
        "activation",
        "shared_norm",
        "qkv_bias",
        "head_bias",
        "positions",
    ):
        assert getattr(here, field) == getattr(published, field)

    model = Roslin.load(name)
    assert Tokenizer.load(folder).has_keys == ("dolly" in name)
    assert 1 <= len(model.answer("What is Roslin?", seed=1, max_new_tokens=8).tokens) <= 8
    assert model.score("What is Roslin?", "A tool.").loss > 0

    values = {"model": name, "records": str(some_starter_records), "output": str(tmp_path / "run"), "epochs": 0.2}
    values["records_licence"] = "cc0-1.0"
    sizes = {"max_length": 256, "row_length": 256, "held_out": {"fraction": 0.1}, "tensorboard": False}
    made = tune(Recipe.parse(values | sizes), restart=False, console=Console(file=io.StringIO()))
    assert Roslin.load(str(made)).score("What is Roslin?", "A tool.").loss > 0
    card = (made / "README.md").read_text(encoding="utf-8")
    assert f"base_model: {name}" in card
    licence = PUBLISHED[name].licence
    assert (f"license: {licence}" in card) == ("-nc-" not in licence)  # whoever may not sell it must choose himself
    assert f"licence of the base | `{licence}`" in card
