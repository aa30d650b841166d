"""Finding a model: the shipped base, a folder, a hub cache laid out as the hub does, or a clear refusal."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.model import find_model, hub, load_decoder
from tiny import tiny_gpt_neox

NAME = "EleutherAI/pythia-6.9b"
COMMIT = "a" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that is all there is: no network."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return folder


def fill(cache: Path, commit: str = COMMIT, branch: str = "main", seed: int = 0) -> Path:
    repository = cache / "models--EleutherAI--pythia-6.9b"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / branch).write_text(commit)
    snapshot = repository / "snapshots" / commit
    tiny_gpt_neox(snapshot, seed=seed)
    return snapshot


def refusal(name: str, revision: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        find_model(name, revision)
    return str(caught.value)


def test_base_is_the_one_that_ships(base_folder: Path) -> None:
    assert find_model("base").samefile(base_folder)
    assert load_decoder(find_model("base")).config.layers == 8


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model(str(tmp_path)) == tmp_path
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model("owner/name").samefile(tmp_path / "owner" / "name")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_model("~/owner") == tmp_path / "owner"


def test_a_hub_name_is_found_in_the_cache(cache: Path) -> None:
    snapshot = fill(cache)
    assert find_model(NAME).samefile(snapshot)
    assert load_decoder(find_model(NAME)).config.width == 48


def test_a_revision_is_a_branch_or_a_commit(cache: Path) -> None:
    main, step = fill(cache), fill(cache, "b" * 40, "step1000", seed=1)
    assert find_model(NAME, "step1000").samefile(step)
    assert find_model(NAME, COMMIT).samefile(main)
    assert not torch.equal(*(load_decoder(folder).embedding.weight for folder in (main, step)))


def test_a_repository_with_bin_files_alone(cache: Path) -> None:
    snapshot = fill(cache)
    (snapshot / "model.safetensors").rename(snapshot / "pytorch_model.bin")
    assert find_model(NAME).samefile(snapshot)


def test_the_hubs_own_settings_decide_where_to_look(tmp_path: Path) -> None:
    snapshot = fill(tmp_path)
    run = subprocess.run(
        [sys.executable, "-c", f"from roslin.model.find import find_model; print(find_model({NAME!r}))"],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(run.stdout.strip()).samefile(snapshot)


def test_what_is_not_cached_is_refused_with_where_it_was_looked_for(cache: Path) -> None:
    text = refusal(NAME)
    assert repr(NAME) in text
    assert str(cache) in text
    assert str(Path.cwd()) in text
    assert "HF_HUB_OFFLINE" in text
    fill(cache)
    assert "at revision 'step3'" in refusal(NAME, "step3")


def test_an_error_of_whatever_library_the_hub_is_reached_with(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ReadTimeout(Exception):
        pass

    def snapshot_download(*_: object, **__: object) -> str:
        raise ReadTimeout("The read operation timed out")

    monkeypatch.setattr(hub, "why_silent", lambda: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert "ReadTimeout: The read operation timed out" in refusal(NAME)


def test_a_revision_is_of_the_hub_and_never_ignored(tmp_path: Path) -> None:
    for name in ("base", str(tmp_path)):
        text = refusal(name, "step3")
        assert "revision 'step3'" in text
        assert name in text


@pytest.mark.parametrize(
    "name", ["", "bas", "no/such/folder", "./none", "a b/c", "Eleuther AI/x", "x" * 5000, "~nobody-here/x"]
)
def test_what_can_be_neither_folder_nor_hub_name(name: str) -> None:
    text = refusal(name)
    assert repr(name) in text
    assert "owner/name" in text


def test_a_file_that_can_be_no_model(tmp_path: Path) -> None:
    for name in ("README.md", "config.json"):
        (tmp_path / name).write_text("{}")
        text = refusal(str(tmp_path / name))
        assert name in text
        assert ".safetensors, .bin" in text
    (tmp_path / "model-00002-of-00003.safetensors").touch()
    assert f"give its folder, {tmp_path}" in refusal(str(tmp_path / "model-00002-of-00003.safetensors"))


def test_one_file_of_weights_with_what_it_needs_beside_it(tmp_path: Path, base_folder: Path) -> None:
    tiny_gpt_neox(tmp_path, vocab_size=8192, tokenizer=base_folder)
    file = tmp_path / "model.safetensors"
    assert find_model(str(file)) == file
    assert torch.equal(load_decoder(file).embedding.weight, load_decoder(tmp_path).embedding.weight)
    with pytest.warns(UserWarning, match="not tuned"):
        alone, whole = Roslin.load(str(file)), Roslin.load(str(tmp_path))
    assert alone.answer("Hi", seed=3, max_new_tokens=9).tokens == whole.answer("Hi", seed=3, max_new_tokens=9).tokens
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_decoder(file)


def test_a_folder_of_gguf_files(tmp_path: Path) -> None:
    (tmp_path / "a.Q4_0.gguf").write_bytes(b"GGUF")
    assert find_model(str(tmp_path)) == tmp_path / "a.Q4_0.gguf"
    (tmp_path / "a.Q8_0-00001-of-00002.gguf").write_bytes(b"GGUF")
    (tmp_path / "a.Q8_0-00002-of-00002.gguf").write_bytes(b"GGUF")
    text = refusal(str(tmp_path))
    assert str(tmp_path / "a.Q4_0.gguf") in text
    assert "a.Q8_0-00001-of-00002.gguf" in text
    assert "00002-of-00002" not in text
    tiny_gpt_neox(tmp_path)
    assert find_model(str(tmp_path)) == tmp_path


def test_gguf_files_on_the_hub(cache: Path) -> None:
    snapshot = cache / "models--owner--name-GGUF" / "snapshots" / COMMIT
    (snapshot / "q").mkdir(parents=True)
    (cache / "models--owner--name-GGUF" / "refs").mkdir()
    (cache / "models--owner--name-GGUF" / "refs" / "main").write_text(COMMIT)
    (snapshot / "q" / "x.Q4_0.gguf").write_bytes(b"GGUF")
    assert find_model("owner/name-GGUF").samefile(snapshot / "q" / "x.Q4_0.gguf")
    (snapshot / "y.gguf").write_bytes(b"GGUF")
    text = refusal("owner/name-GGUF")
    assert "owner/name-GGUF/q/x.Q4_0.gguf" in text
    assert "owner/name-GGUF/y.gguf" in text
    assert find_model("owner/name-GGUF/y.gguf").samefile(snapshot / "y.gguf")
    assert "owner/name-GGUF/none.gguf" in refusal("owner/name-GGUF/none.gguf")


def test_a_model_that_is_cached_in_part_is_listed(cache: Path) -> None:
    snapshot = fill(cache)
    weight_map = {"a": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors"}
    weight_map["c"] = "model-00003-of-00003.safetensors"
    (snapshot / "model.safetensors").rename(snapshot / "model-00002-of-00003.safetensors")
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    text = refusal(NAME)
    shards = "model-00001-of-00003.safetensors, model-00003-of-00003.safetensors"
    assert f"missing: {shards}, tokenizer.json\n" in text
    assert "model-00002-of-00003.safetensors" in text.split("missing:")[0]
    (snapshot / "config.json").unlink()
    assert "missing: config.json, model-00001" in refusal(NAME)
    for file in snapshot.iterdir():
        file.unlink()
    text = refusal(NAME)
    assert "there: nothing" in text
    assert "missing: config.json, weights" in text
