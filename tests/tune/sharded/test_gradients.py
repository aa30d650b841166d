"""Gradients of a model in shards, however its blocks run; one of the processes has a pass less than the other."""

from pathlib import Path
from typing import Any

import pytest

from sharded_runs import torchrun
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

SCRIPT = Path(__file__).parents[2] / "gradients_in_shards.py"


@pytest.mark.full
@pytest.mark.parametrize(
    ("maker", "how"),
    [
        (tiny_gpt_neox, "written out"),
        (tiny_gptj, "written out, two again"),
        (tiny_gpt_neox, "plain, all again"),
        (tiny_llama, "plain"),
    ],
)
def test_they_are_those_of_the_whole_model(tmp_path: Path, maker: Any, how: str) -> None:
    """Of a head with a bias, and of one that is tied to the embedding."""
    maker(tmp_path / "model", **({"tie_word_embeddings": True} if maker is tiny_llama else {}))
    ended = torchrun("--nproc-per-node=2", str(SCRIPT), str(tmp_path / "model"), how)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 1e-6
