"""What is known of a model without loading it, and whether it is here, without a network."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import save_file

from gguf_files import tiny_model, write_model
from hub_cache import fill
from roslin.errors import InputError
from roslin.model.describe import KNOWN, Description, describe
from tiny import tiny_gpt_neox

NAME = "EleutherAI/pythia-6.9b"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of our own; the hub itself is not declared unreachable, for nobody may try."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return folder


def one(name: str) -> Description:
    [found] = describe([name])
    return found


def test_known_models_are_described_wherever_they_are(cache: Path, base_folder: Path) -> None:
    found = {model.name: model for model in describe(KNOWN)}
    assert len(found) == 11
    assert {name for name, model in found.items() if model.here == "yes"} >= {"base"}
    assert {model.here for name, model in found.items() if "/" in name} == {"no"}
    assert (found["base"].licence, found["base"].config.layers) == ("cc-by-sa-4.0", 8)
    assert found["base"].folder is not None and found["base"].folder.samefile(base_folder)
    assert found[NAME].architecture == "GPTNeoXForCausalLM"
    assert found["databricks/dolly-v1-6b"].licence == "cc-by-nc-4.0"


def test_what_the_hubs_cache_holds_is_here(cache: Path) -> None:
    snapshot = fill(cache, NAME)
    assert (one(NAME).here, one(NAME).folder) == ("yes", snapshot)
    assert one(NAME).config.width == 4096


def without_weights(snapshot: Path) -> None:
    (snapshot / "model.safetensors").unlink()


def with_an_index(text: str) -> Callable[[Path], None]:
    def change(snapshot: Path) -> None:
        (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
        (snapshot / "model.safetensors.index.json").write_text(text, encoding="utf-8")

    return change


SHARDS = '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-0000%s-of-00002.safetensors"}}'


@pytest.mark.parametrize(
    ("change", "here"),
    [
        (without_weights, "partly"),
        (with_an_index(SHARDS % 2), "partly"),
        (with_an_index(SHARDS % 1), "yes"),
        (with_an_index("{}"), "partly"),
        (with_an_index("nothing"), "partly"),
    ],
)
def test_weights_are_here_when_every_shard_is(cache: Path, change: Callable[[Path], None], here: str) -> None:
    change(fill(cache, NAME))
    assert one(NAME).here == here


def test_another_model_of_the_cache_and_a_folder_are_read(cache: Path, tmp_path: Path) -> None:
    snapshot = fill(cache, "some-owner/some-model")
    (snapshot / "README.md").write_text("---\nlicense: bsd-3-clause\n---\n# Card\n", encoding="utf-8")
    found = one("some-owner/some-model")
    assert (found.config.width, found.licence, found.here) == (48, "bsd-3-clause", "yes")
    tiny_gpt_neox(tmp_path / "mine", hidden_size=64)
    found = one(str(tmp_path / "mine"))
    assert (found.config.width, found.licence, found.tokens) == (64, None, None)


def put_adapter(folder: Path, base: str) -> Path:
    """An adapter that adds nothing to a model as `tiny_gpt_neox` makes it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file({}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_is_here_when_its_base_is(cache: Path, tmp_path: Path) -> None:
    adapter = put_adapter(tmp_path / "adapter", "some-owner/some-model")
    with pytest.raises(InputError, match=r"needs its base\. some-owner/some-model is not on this machine"):
        one(str(adapter))
    base = fill(cache, "some-owner/some-model")
    assert (one(str(adapter)).here, one(str(adapter)).config.width) == ("yes", 48)
    without_weights(base)
    assert one(str(adapter)).here == "partly"


def test_adapters_and_gguf_files_of_the_cache(cache: Path) -> None:
    snapshot = fill(cache, "some-owner/some-model")
    for file in snapshot.iterdir():
        file.unlink()
    put_adapter(snapshot, "base")
    assert (one("some-owner/some-model").folder, one("some-owner/some-model").here) == (snapshot, "yes")
    (snapshot / "adapter_config.json").unlink()
    path = write_model(snapshot / "m.gguf", tiny_model("llama"))
    assert one("some-owner/some-model").folder == one("some-owner/some-model/m.gguf").folder == path
    with pytest.raises(InputError, match=r"n\.gguf is not in the hub's cache"):
        one("some-owner/some-model/n.gguf")


@pytest.mark.parametrize(
    "card", ["no metadata", "---\nlicense: [\n---\n", "---\nlicense: [mit, other]\n---\n", "---\n- a\n---\n"]
)
def test_a_card_that_tells_no_licence(tmp_path: Path, card: str) -> None:
    tiny_gpt_neox(tmp_path)
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert one(str(tmp_path)).licence is None


def test_a_folder_goes_before_a_model_of_the_hub(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_gpt_neox(tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert one(NAME).config.width == 48


def test_all_that_is_wrong_is_told_at_once(cache: Path, tmp_path: Path) -> None:
    names = ["owner/absent", "./none", str(tmp_path), "bas", "owner/" + "x" * 5000, "owner/a--b", "base"]
    with pytest.raises(InputError) as caught:
        describe(names)
    for words in ("hf download owner/absent", "'./none'", "config.json", "'bas'", "x" * 5000, "owner/a--b is not in"):
        assert words in str(caught.value)
