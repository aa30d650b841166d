"""Every way a folder of weights can be wrong: each refused by name, all faults of a folder in one error."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
import torch

from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.model import Decoder, load, load_decoder
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama
from weight_folders import as_bin, change_config, rewrite


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_decoder(folder)
    return str(caught.value)


def test_every_wrong_tensor_is_named_in_one_error(tmp_path: Path) -> None:
    tiny_gptj(tmp_path)

    def spoil(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        del state["transformer.h.1.mlp.fc_in.weight"]
        del state["lm_head.bias"]
        state["transformer.h.0.ln_1.weight"] = torch.ones(47)
        state["transformer.h.2.attn.k_proj.weight"] = torch.ones(48, 48, dtype=torch.int32)
        return {**state, "transformer.h.3.ln_1.bias": torch.ones(48), "score.weight": torch.ones(2)}

    rewrite(tmp_path, spoil)
    text = refusal(tmp_path)
    for fault in (
        "transformer.h.1.mlp.fc_in.weight is missing",
        "lm_head.bias is missing",
        "model.safetensors: transformer.h.0.ln_1.weight has the shape [47]; config.json makes it [48]",
        "model.safetensors: transformer.h.2.attn.k_proj.weight holds torch.int32",
        "model.safetensors: transformer.h.3.ln_1.bias is not known",
        "model.safetensors: score.weight is not known",
        str(tmp_path),
    ):
        assert fault in text
    assert text.count("\n") == 6


def test_a_wholly_other_model_gives_a_short_error(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path, num_hidden_layers=1)
    change_config(tmp_path, num_hidden_layers=40)
    text = refusal(tmp_path)
    assert "and 448 more" in text
    assert len(text.splitlines()) < 25


def test_weights_of_another_family_than_the_configuration_says(tmp_path: Path) -> None:
    tiny_gptj(tmp_path / "gptj")
    tiny_gpt_neox(tmp_path / "neox")
    (tmp_path / "neox" / "model.safetensors").write_bytes((tmp_path / "gptj" / "model.safetensors").read_bytes())
    text = refusal(tmp_path / "neox")
    assert "no tensor of a gpt_neox model is among them; they look like gptj's: config.json or the weights" in text
    assert len(text.splitlines()) == 2
    tiny_llama(tmp_path / "llama")
    (tmp_path / "neox" / "model.safetensors").write_bytes((tmp_path / "llama" / "model.safetensors").read_bytes())
    assert "they look like llama or mistral or qwen2 or qwen3's" in refusal(tmp_path / "neox")


def test_a_configuration_without_a_model_type(tmp_path: Path) -> None:
    tiny_gptj(tmp_path)
    change_config(tmp_path, model_type=None)
    assert f"{tmp_path / 'config.json'} names no model_type" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert f"{tmp_path / 'config.json'} names no model_type" in refusal(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    tiny_gptj(tmp_path)
    with pytest.raises(InputError, match=rf"{tmp_path}: no tokenizer\.json here"):
        Roslin.load(str(tmp_path))


def test_a_file_that_is_cut_short_is_named_as_such_by_itself(tmp_path: Path) -> None:
    tiny_gptj(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "model.safetensors is cut short: it has" in refusal(path)


def test_rows_that_the_configuration_denies(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    change_config(tmp_path, vocab_size=120)
    text = refusal(tmp_path)
    assert "gpt_neox.embed_in.weight has the shape [128, 48]; config.json makes it [120, 48]" in text
    assert "embed_out.weight has the shape [128, 48]" in text


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_missing_and_truncated_shards_are_named_together(tmp_path: Path, suffix: str) -> None:
    oracle = tiny_gpt_neox(tmp_path)
    if suffix == "bin":
        as_bin(tmp_path, shards=4)
    else:
        (tmp_path / "model.safetensors").unlink()
        oracle.save_pretrained(tmp_path, max_shard_size="90KB")
    first, second, third, *_ = sorted(tmp_path.glob(f"*-of-*.{suffix}"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-50])
    third.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    text = refusal(tmp_path)
    assert f"{first.name} is missing" in text
    assert f"{second.name} is cut short" in text
    assert f"{third.name} is only a pointer" in text
    assert "gpt_neox" not in text, "tensors of a shard that is missing are no fault of their own"


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 3_000])
def test_a_single_file_cut_anywhere_is_refused(tmp_path: Path, kept: int) -> None:
    tiny_gpt_neox(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "model.safetensors is cut short" in refusal(tmp_path)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"{" * 100)
    assert "no safetensors file: its header does not list tensors" in refusal(tmp_path)
    for header, fault in (
        (["F32"], "its header does not list tensors"),
        ({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}, "a has the number format F4"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "a has 4 bytes, not the 8 of its shape"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, "a has the number format ['F32']"),
        ({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, "its header gives a no shape or no place"),
        ({"a": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}, "its header gives a no shape or no place"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, "its header gives a no shape or no place"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4]}}, "its header gives a no shape or no place"),
    ):
        text = json.dumps(header).encode()
        (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"0000")
        assert fault in refusal(tmp_path)


class Payload:
    """Runs code where it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.trace),)


def test_code_in_a_bin_is_never_run(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"a": Payload(tmp_path / "trace")}, tmp_path / "pytorch_model.bin")
    text = refusal(tmp_path)
    assert "pytorch_model.bin holds Python objects beside tensors" in text
    assert "weights_only" not in text, "nobody is told to switch the protection off"
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([torch.ones(2)], "pytorch_model.bin holds a list, not weights by name"),
        ({1: torch.ones(2)}, "no tensor of a gpt_neox model is among them; pytorch_model.bin: 1:"),
        ({"a": torch.eye(3).to_sparse()}, "pytorch_model.bin: a is a sparse tensor"),
    ],
)
def test_a_bin_of_other_things(tmp_path: Path, content: object, fault: str) -> None:
    tiny_gpt_neox(tmp_path, num_hidden_layers=1)
    (tmp_path / "model.safetensors").unlink()
    torch.save(content, tmp_path / "pytorch_model.bin")
    assert fault in refusal(tmp_path)


def test_a_bin_that_was_compressed_or_damaged(tmp_path: Path) -> None:
    """Its numbers are read by their place in the file, where a compressed one has others."""
    tiny_gpt_neox(tmp_path)
    as_bin(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    with ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "pytorch_model.bin was compressed" in refusal(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x01\x09"))
    assert "pytorch_model.bin is cut short" in refusal(tmp_path)


def test_one_tensor_under_two_names(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    rewrite(tmp_path, lambda state: {**state, "lm_head.weight": torch.zeros(128, 48)})
    assert "model.safetensors: lm_head.weight is given twice: model.safetensors: embed_out.weight" in refusal(tmp_path)


def test_links_to_nothing_and_folders_in_place_of_files(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    weights.symlink_to(tmp_path / "gone")
    assert "model.safetensors is a link to nothing" in refusal(tmp_path)
    weights.unlink()
    (tmp_path / "shard.safetensors").mkdir()
    index = {"weight_map": {"a": "shard.safetensors", "b": "nul\0.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    text = refusal(tmp_path)
    assert "shard.safetensors cannot be read" in text
    assert "nul\0.safetensors cannot be read" in text
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    assert "config.json cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("index", "fault"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "has no weight_map"),
        ('{"weight_map": {"a": "../elsewhere.safetensors"}}', "points outside its folder"),
    ],
)
def test_a_broken_index(tmp_path: Path, index: str, fault: str) -> None:
    tiny_gpt_neox(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert fault in refusal(tmp_path)


def test_folders_without_configuration_or_weights(tmp_path: Path) -> None:
    assert "config.json is missing" in refusal(tmp_path)
    tiny_gpt_neox(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "holds no weights" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "config.json is not JSON" in refusal(tmp_path)


def replace(file: Path) -> None:
    file.with_name("new").write_bytes(file.read_bytes())
    file.with_name("new").replace(file)


@pytest.mark.parametrize(("change", "fault"), [(replace, "was changed while"), (Path.unlink, "was removed while")])
def test_weights_that_change_while_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], fault: str
) -> None:
    """Parts of one file and parts of another would be no model, without anyone's noticing."""
    tiny_gpt_neox(tmp_path)
    place, done = load.placed, []

    def placed(decoder: Decoder, *rest: Any) -> torch.Tensor:
        if len(done) == 3:
            change(tmp_path / "model.safetensors")
        done.append(decoder)
        return place(decoder, *rest)

    monkeypatch.setattr(load, "placed", placed)
    assert fault in refusal(tmp_path)
