"""What tells models apart by their files, and what does not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from roslin.errors import InputError
from roslin.model.fingerprint import LARGE, fingerprint


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROSLIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sha256.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * LARGE)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    return folder


def test_a_copy_is_the_same_wherever_it_lies(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    linked = tmp_path / "snapshot"  # as the hub's cache has it: links to files named by their hashes
    linked.mkdir()
    for number, path in enumerate(model.iterdir()):
        blob = tmp_path / f"blob{number}"
        shutil.copy(path, blob)
        (linked / path.name).symlink_to(blob)
    assert fingerprint(model) == fingerprint(tmp_path / "copy") == fingerprint(linked)


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer.model",
        "vocab.json",
        "merges.txt",
        "modeling.py",
    ],
)
def test_what_decides_numbers_counts(model: Path, name: str) -> None:
    before = fingerprint(model)
    (model / name).write_text('{"changed": 1}')
    assert fingerprint(model) != before


@pytest.mark.parametrize(
    "name", ["training_args.bin", "optimizer.pt", "rng_state.pth", "README.md", "pytorch_model.bin"]
)
def test_what_is_not_read_does_not_count(model: Path, name: str) -> None:
    """pytorch_model.bin is one of these: model.safetensors comes first."""
    before = fingerprint(model)
    (model / name).write_text("state")
    assert fingerprint(model) == before


def test_every_file_of_an_index_counts(model: Path) -> None:
    (model / "model.safetensors").unlink()
    shards = ["one.safetensors", "two.safetensors"]
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    found = set()
    for name in shards:
        (model / name).write_text("weights")
        found.add(fingerprint(model))
        (model / name).write_text("other weights")
        found.add(fingerprint(model))
    assert len(found) == 4


def test_an_adapter_is_told_by_itself_and_by_its_base(model: Path) -> None:
    adapter = model.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q"], "base_model_name_or_path": "../model"}'
    )
    (adapter / "adapter_model.safetensors").write_text("weights")
    first = fingerprint(adapter)
    (adapter / "training_args.bin").write_text("state")
    assert fingerprint(adapter) == first
    (adapter / "adapter_model.safetensors").write_text("other weights")
    second = fingerprint(adapter)
    (model / "model.safetensors").write_text("another base")
    assert len({first, second, fingerprint(adapter)}) == 3


def test_the_parts_of_a_split_gguf_count_and_no_others(tmp_path: Path) -> None:
    parts = [tmp_path / f"m[q4]-0000{number}-of-00002.gguf" for number in (1, 2)]
    for part in parts:
        part.write_bytes(b"GGUF")
    before = fingerprint(parts[0])
    (tmp_path / "m[q4]-other.gguf").write_bytes(b"GGUF")
    assert fingerprint(parts[0]) == before
    parts[1].write_bytes(b"GGUF changed")
    assert fingerprint(parts[0]) != before


def test_a_hash_is_remembered_until_the_file_changes(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(model)
    with monkeypatch.context() as patch:
        patch.setattr("roslin.model.fingerprint._sha256", without(model / "model.safetensors"))
        assert fingerprint(model) == before
    (model / "model.safetensors").write_bytes(b"v" * LARGE)
    assert fingerprint(model) != before


def without(path: Path) -> Callable[[Path], str]:
    from roslin.model.fingerprint import _sha256

    def small(other: Path) -> str:
        assert other != path
        return _sha256(other)

    return small


@pytest.mark.parametrize("content", ["[]", '{"cut', ""])
def test_a_cache_that_is_damaged_is_none(model: Path, cache: Path, content: str) -> None:
    before = fingerprint(model)
    cache.write_text(content)
    assert fingerprint(model) == before


def test_a_cache_that_cannot_be_written_is_none(model: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    assert fingerprint(model) == fingerprint(model)


def test_a_folder_without_weights_is_refused(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights"):
        fingerprint(model)
