"""`roslin harness`: the harness's own command gets every word, and Roslin's model where none is named."""

import sys
from collections.abc import Sequence

import pytest

from roslin.cli.harness import with_model
from roslin.cli.main import main

MINE = ["--model", "roslin"]


@pytest.mark.parametrize(
    ("words", "added"),
    [
        ([], MINE),
        (["--tasks", "piqa"], MINE),
        (["run", "--tasks", "piqa"], MINE),
        (["--tasks", "piqa", "--model", "hf"], []),
        (["--model=hf", "--tasks", "piqa"], []),
        (["-M", "hf"], []),
        (["ls", "tasks"], []),
        (["-h"], []),
    ],
)
def test_a_run_without_a_model_is_of_roslin_s(words: list[str], added: list[str]) -> None:
    assert with_model(words) == [*words, *added]


def test_every_option_reaches_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []

    def run(arguments: Sequence[str]) -> None:
        reached.extend(arguments)

    monkeypatch.setattr("roslin.evaluate.harness.run", run)
    words = ["--model_args", "pretrained=base,dtype=float32", "--tasks", "piqa", "-b", "4", "--help"]
    monkeypatch.setattr(sys, "argv", ["roslin", "harness", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert reached == words
