"""One folder that Roslin wrote, and both pipelines on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import roslin
from model_folders import keyed_base

GREEDY = {"torch_dtype": torch.float32, "do_sample": False, "max_new_tokens": 10}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    return keyed_base(base_folder, tmp_path_factory.mktemp("keyed") / "model")


@pytest.fixture(scope="session")
def copied_code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """transformers copies a folder's code into a cache before it runs it: into one of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        place = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", place)
        patch.syspath_prepend(place)
        yield


@pytest.fixture(scope="session")
def theirs(folder: Path, copied_code: None) -> Any:
    """transformers' pipeline on the folder, by Dolly's own call."""
    return transformers.pipeline(model=str(folder), trust_remote_code=True, device_map="auto", **GREEDY)


@pytest.fixture(scope="session")
def ours(folder: Path) -> Any:
    return roslin.pipeline(folder, device_map="auto", trust_remote_code=True, **GREEDY)
