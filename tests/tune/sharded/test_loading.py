"""Shards are loaded without a whole copy in any process."""

import json
from pathlib import Path

import pytest
import torch

from roslin.model import Decoder, load_config, save_decoder
from sharded_runs import torchrun
from tiny import tiny_gpt_neox

LOADER = Path(__file__).parents[2] / "loaded_in_shards.py"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """GPT-NeoX of 50 M random parameters, 201 MB in fp32."""
    folder = tmp_path / "large"
    folder.mkdir()
    sizes = {"hidden_size": 1024, "num_hidden_layers": 1, "intermediate_size": 4096}
    tiny_gpt_neox(folder, **sizes)
    text = (folder / "config.json").read_text(encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(json.loads(text) | {"num_hidden_layers": 4}), encoding="utf-8")
    config = load_config(folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    save_decoder(Decoder(config), folder)
    return folder


@pytest.mark.full
def test_no_process_ever_has_a_whole_copy(large: Path, tmp_path: Path) -> None:
    """Half of the weights, and what is on its way; a process by itself has all, which the same measurement shows.

    All of them give the base the same checksum.
    """
    tiny_gpt_neox(tmp_path / "small")
    found = {}
    for how in ("shards", "whole"):
        ended = torchrun("--nproc-per-node=2", str(LOADER), str(tmp_path / "small"), str(large), how)
        assert ended.returncode == 0, ended.stderr
        found[how] = [json.loads(line) for line in ended.stdout.splitlines()]
        assert len(found[how]) == 2
    assert all(0.45 < each["share"] < 0.75 for each in found["shards"])
    assert all(each["share"] > 0.9 for each in found["whole"])
    assert len({each["digest"] for each in found["shards"] + found["whole"]}) == 1
