"""Rows read from files, against the whole parameters that loading gives."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.model import load_config, load_decoder
from roslin.model.stored_rows import StoredRows
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

MAKERS = {"gpt_neox": tiny_gpt_neox, "gptj": tiny_gptj, "llama": tiny_llama}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made: dict[str, Path] = {}
    for name, maker in MAKERS.items():
        made[name] = tmp_path_factory.mktemp(name)
        maker(made[name], dtype=torch.bfloat16 if name == "gptj" else torch.float32)
    return made


@settings(deadline=None, max_examples=15)
@given(data=st.data(), kind=st.sampled_from(sorted(MAKERS)))
def test_they_are_those_of_the_whole_parameter(folders: dict[str, Path], data: Any, kind: str) -> None:
    """GPT-NeoX's heads are rearranged, llama's queries, keys and values are stacked; any rows, none too."""
    decoder = load_decoder(folders[kind])
    stored = StoredRows(folders[kind], load_config(folders[kind]))
    assert stored.dtype == decoder.dtype
    for name, parameter in decoder.named_parameters():
        assert stored.shapes[name] == tuple(parameter.shape)
        start = data.draw(st.integers(0, len(parameter)))
        stop = data.draw(st.integers(start, len(parameter)))
        assert torch.equal(stored.read(name, start, stop), parameter[start:stop]), name
