"""Processes that torchrun starts on one model: the tokens of one process, and an end that is told once."""

import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

import parallel_answers
from roslin.model import Decoder, load_decoder, save_decoder
from roslin.model.quantised import Form
from roslin.model.save_quantised import save_quantised
from sharded_runs import torchrun
from tiny_decoders import VOCABULARY, tiny_decoder

if TYPE_CHECKING:
    import subprocess

SCRIPT = parallel_answers.__file__
GROUPED: dict[str, Any] = {"heads": 4, "kv_heads": 2, "head_dim": 8, "rotary_dims": 8}
full = pytest.mark.full


def started(folder: Path, count: int, *befalls: int, dtype: str = "float32") -> "subprocess.CompletedProcess[str]":
    words = [SCRIPT, str(folder), dtype, str(VOCABULARY), *map(str, befalls)]
    return torchrun(f"--nproc-per-node={count}", *words)


def stored(folder: Path, family: str, **changes: Any) -> Path:
    save_decoder(tiny_decoder(family, **changes), folder)
    return folder


@pytest.mark.parametrize(
    ("family", "count", "changes"),
    [
        ("gpt_neox", 2, {"vocab_rows": 65}),
        pytest.param("gptj", 2, {}, marks=full),
        pytest.param("llama", 2, GROUPED, marks=full),
        pytest.param("mistral", 2, GROUPED, marks=full),
        pytest.param("gpt_neox", 4, {"heads": 4, "kv_heads": 4, "head_dim": 8}, marks=full),
    ],
)
def test_tokens_are_those_of_one_process(family: str, count: int, changes: dict[str, Any], tmp_path: Path) -> None:
    folder = stored(tmp_path, family, **changes)
    run = started(folder, count)
    assert run.returncode == 0, run.stderr
    as_expected(json.loads(run.stdout), load_decoder(folder))


def as_expected(found: list[dict[str, Any]], decoder: Decoder) -> None:
    """That these answers are those of a whole model in one process."""
    expected = parallel_answers.answered(decoder, VOCABULARY)
    assert [one["reason"] for one in found] == [one["reason"] for one in expected]
    assert "cancelled" in {one["reason"] for one in found}
    for ours, theirs in zip(found, expected, strict=True):
        whole = theirs["reason"] != "cancelled"  # else how far it had come depends on what gave way meanwhile
        length = len(theirs["ids"]) if whole else min(len(ours["ids"]), len(theirs["ids"]))
        assert length > 5
        assert ours["ids"][:length] == list(theirs["ids"][:length])
        assert not whole or len(ours["ids"]) == length
        assert ours["logprobs"][:length] == pytest.approx(theirs["logprobs"][:length], abs=1e-4)
        for mine, its in zip(ours["tops"][:length], theirs["tops"][:length], strict=True):
            assert [id for id, _ in mine] == [id for id, _ in its]


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("gpt_neox", "int4"),
        pytest.param("gpt_neox", "int8", marks=full),
        pytest.param("gpt_neox", "fp8", marks=full),
        pytest.param("llama", "int4", marks=full),
        pytest.param("llama", "int8", marks=full),
    ],
)
def test_tokens_of_a_quantised_model_are_those_of_one_process(family: str, form: Form, tmp_path: Path) -> None:
    decoder = tiny_decoder(family, width=64, kv_heads=2, head_dim=32, inner=128, vocab_rows=65)
    save_quantised(decoder, tmp_path, form, group=32)
    run = started(tmp_path, 2)
    assert run.returncode == 0, run.stderr
    as_expected(json.loads(run.stdout), load_decoder(tmp_path))


@full
def test_bfloat16_is_near(tmp_path: Path) -> None:
    folder = stored(tmp_path, "gpt_neox")
    run = started(folder, 2, dtype="bfloat16")
    assert run.returncode == 0, run.stderr
    first, *_ = json.loads(run.stdout)
    expected, *_ = parallel_answers.answered(load_decoder(folder, dtype=torch.bfloat16), VOCABULARY)
    assert first["ids"][0] == expected["ids"][0]
    assert first["logprobs"][0] == pytest.approx(expected["logprobs"][0], abs=0.1)


@pytest.mark.parametrize(
    ("befalls", "words"),
    [
        pytest.param((signal.SIGKILL, 1), "Rank 1 (host", marks=full),
        pytest.param((signal.SIGSTOP, 1), "hangs: no sign of life", marks=full),
        pytest.param((signal.SIGKILL, 0), "Rank 0 has died", marks=full),
    ],
)
def test_a_lost_process_is_told_once(befalls: tuple[int, int], words: str, tmp_path: Path) -> None:
    folder = stored(tmp_path, "gpt_neox", positions=4000)
    run = started(folder, 2, *befalls)
    assert run.returncode != 0
    told = [line for line in run.stderr.splitlines() if line.startswith("roslin: ")]
    assert len(told) == 1, run.stderr[-3000:]
    assert words in told[0]
    assert "roslin/engine" not in run.stderr  # no traceback through our code beside torchrun's own


@full
def test_an_error_of_all_is_told_once(base_folder: Path) -> None:
    run = torchrun("--nproc-per-node=4", "-m", "roslin", "ask", str(base_folder), "Who?", "--device", "cpu")
    assert run.returncode != 0
    assert run.stderr.count("4 processes or GPUs cannot share this model evenly") == 1
    assert "has died" not in run.stderr


@full
def test_the_command_says_what_one_process_says(base_folder: Path) -> None:
    import subprocess

    words = ["ask", str(base_folder), "Name three birds.", "--greedy", "--device", "cpu", "--dtype", "float32"]
    several = torchrun("--nproc-per-node=2", "-m", "roslin", *words)
    one = subprocess.run(
        [sys.executable, "-m", "roslin", *words], capture_output=True, text=True, check=True, timeout=120
    )
    assert several.returncode == 0, several.stderr[-2000:]
    assert several.stdout == one.stdout
