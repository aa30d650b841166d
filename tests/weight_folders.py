"""Changing the weights and the configuration in a saved model's folder."""

import json
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch


def as_bin(folder: Path, shards: int = 1, **extra: torch.Tensor) -> None:
    """Turn a folder's model.safetensors into torch's .bin, as transformers wrote it until 2023."""
    state = {**safetensors.torch.load_file(folder / "model.safetensors"), **extra}
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    weight_map = {}
    for number in range(shards):
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = dict(list(state.items())[number::shards])
        torch.save(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def rewrite(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], **metadata: str
) -> None:
    path = folder / "model.safetensors"
    changed = change(safetensors.torch.load_file(path))
    safetensors.torch.save_file(changed, path, metadata={"format": "pt", **metadata})


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
