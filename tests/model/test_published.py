"""The published models: their configurations against transformers' own classes, and against published counts."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from roslin.errors import InputError
from roslin.model import Decoder
from roslin.model.families import FAMILIES
from roslin.model.published import PUBLISHED, Published
from roslin.tokens import Tokenizer

PARAMETERS = {
    "smollm2": 134_515_008,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "EleutherAI/pythia-6.9b": 6_857_302_016,
    "EleutherAI/pythia-12b": 11_846_072_320,
    "EleutherAI/gpt-j-6B": 6_050_882_784,
    "EleutherAI/gpt-neox-20b": 20_554_567_680,
}
"""From their owners' cards; the Dollies have a few rows more or less than what they were tuned from."""
TUNED_FROM = {
    "databricks/dolly-v2-3b": "EleutherAI/pythia-2.8b",
    "databricks/dolly-v2-7b": "EleutherAI/pythia-6.9b",
    "databricks/dolly-v2-12b": "EleutherAI/pythia-12b",
    "databricks/dolly-v1-6b": "EleutherAI/gpt-j-6B",
}
KEYS = 3

models = pytest.mark.parametrize("model", PUBLISHED.values(), ids=PUBLISHED.keys())


def test_every_model_of_the_table_is_there() -> None:
    assert PUBLISHED.keys() == PARAMETERS.keys() | TUNED_FROM.keys()


@models
def test_names_and_shapes_are_those_of_transformers(model: Published) -> None:
    kind = model.values["model_type"]
    with torch.device("meta"):
        oracle = AutoModelForCausalLM.from_config(AutoConfig.for_model(**model.values))
        decoder = Decoder(model.config)
    assert type(oracle).__name__ == model.values["architectures"][0] == FAMILIES[kind].architecture
    assert parameters(model, decoder) == {
        FAMILIES[kind].canonical(name): tuple(parameter.shape) for name, parameter in oracle.named_parameters()
    }


def parameters(model: Published, decoder: Decoder) -> dict[str, tuple[int, ...]]:
    """The decoder's parameters as a file has them."""
    family = FAMILIES[model.config.family]
    found = {}
    for name, parameter in decoder.named_parameters():
        source = family.source(name)
        for theirs, rows in zip(source.names, source.rows(model.config, len(parameter)), strict=True):
            found[theirs] = (rows, *parameter.shape[1:])
    return found


@models
def test_a_decoder_has_as_many_parameters_as_published(model: Published) -> None:
    with torch.device("meta"):
        decoder = Decoder(model.config)
    count = sum(parameter.numel() for parameter in decoder.parameters())
    assert count == model.config.parameter_count
    if model.name in PARAMETERS:
        assert count == PARAMETERS[model.name]
    else:
        base = PUBLISHED[TUNED_FROM[model.name]].config
        rows = base.vocab_rows - model.config.vocab_rows
        assert count == base.parameter_count - rows * (2 * base.width + base.head_bias)


@models
def test_rotary_width_activation_and_positions(model: Published) -> None:
    config = model.config
    turning = {"gpt_neox": config.head_dim // 4, "gptj": 64, "llama": config.head_dim}
    assert config.rotary_dims == turning[config.family]
    tanh = model.name == "EleutherAI/gpt-neox-20b" or config.family == "gptj"
    assert config.activation == ("silu" if config.family == "llama" else "gelu_new" if tanh else "gelu")
    assert config.positions == (8192 if model.name == "smollm2" else 2048)
    assert model.tokens <= config.vocab_rows


def test_dolly_has_its_bases_tokens_and_three_keys(pythia_tokenizer: Path) -> None:
    tokenizer = Tokenizer.load(pythia_tokenizer)
    for name, base in TUNED_FROM.items():
        assert PUBLISHED[name].tokens == PUBLISHED[name].config.vocab_rows == PUBLISHED[base].tokens + KEYS
    assert PUBLISHED["EleutherAI/pythia-2.8b"].tokens == tokenizer.size
    tokenizer.add_keys()
    assert PUBLISHED["databricks/dolly-v2-3b"].tokens == tokenizer.size


def test_only_what_was_not_read_from_the_owner_is_noted() -> None:
    assert [model.name for model in PUBLISHED.values() if model.note] == ["databricks/dolly-v1-6b"]


def test_a_wrong_row_names_its_model() -> None:
    with pytest.raises(InputError, match="owner/wrong"):
        Published("owner/wrong", "mit", 1, {"model_type": "gpt_neox", "hidden_size": 0}).config  # noqa: B018
