"""Export to CTranslate2, whose own engine the export is compared by; the package is installed beside the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exported import TOKENS, keyed_tokenizer, made
from roslin.errors import InputError
from roslin.publish.export import export, format_of
from side_packages import side_package

CTRANSLATE2 = "ctranslate2==4.8.5"
FAMILIES = ["gpt_neox", "gptj", "llama", "mistral", "qwen2", "qwen3"]


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keyed_tokenizer(base_folder, tmp_path_factory.mktemp("keyed"))


def roslin(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command, on a machine that has CTranslate2."""
    return subprocess.run(
        [sys.executable, "-m", "roslin", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": side_package(CTRANSLATE2)},
    )


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES)
def test_ctranslate2_gives_the_same_logits(family: str, tokenizer: Path, tmp_path: Path) -> None:
    source = made(family, tmp_path / "source", tokenizer)
    done = roslin("export", str(source), str(tmp_path / "out"), "--format", "ctranslate2", "--json")
    assert done.returncode == 0, done.stderr
    parity = json.loads(done.stdout)["parity"]
    assert parity["largest_error"] < 1e-4 and parity["agreement"] == 1.0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"model.bin", "config.json", "vocabulary.json", "tokenizer.json"}
    assert "as-safetensors" not in names
    assert len(json.loads((tmp_path / "out" / "vocabulary.json").read_text())) == TOKENS


@pytest.mark.full
def test_float16_halves_the_base(tmp_path: Path) -> None:
    done = roslin("export", "base", str(tmp_path / "out"), "--format", "ctranslate2", "--dtype", "float16", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] < 45e6


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("gpt_neox", {"rotary_base": 50000.0}, "rotary base 10000 alone"),
        ("gpt_neox", {"attention_bias": False}, "always has biases"),
        ("gpt_neox", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "no scaled positions"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "no dynamic scaling"),
    ],
)
def test_what_ctranslate2_would_run_as_another_model_is_refused(
    family: str, changes: dict[str, Any], told: str, tokenizer: Path, tmp_path: Path
) -> None:
    source = made(family, tmp_path / "source", tokenizer, **changes)
    with pytest.raises(InputError, match=told):
        export(str(source), tmp_path / "out", format_of("ctranslate2"))
