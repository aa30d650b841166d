"""The programs that a card shows are run as they stand there, from the folder that holds the model."""

import io
import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from rich.console import Console

from made_evidence import tuning
from model_folders import keyed_base
from other_versions import environment
from other_versions import run as answered
from roslin.model.adapter import load_adapted
from roslin.publish.card import CardFacts, ModelFiles, write_first_card
from roslin.publish.card.usage import usage
from roslin.publish.export import export, format_of
from roslin.publish.parity import decoder_logits
from roslin.tune import Recipe
from roslin.workflows.tune import tune

PROGRAM = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def place(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds `model`, as the end of tuning leaves it."""
    folder = tmp_path_factory.mktemp("place")
    write_first_card(keyed_base(base_folder, folder / "model"), tuning())
    return folder


def programs(card: Path, heading: str) -> list[tuple[str, str]]:
    """The programs under a heading of a written card, each with its language."""
    text = card.read_text(encoding="utf-8")
    return PROGRAM.findall(text.split(f"\n### {heading}\n", 1)[1].split("\n### ", 1)[0])


def run(place: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=place, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_roslins_commands_and_program_answer(place: Path) -> None:
    [(_, commands), (_, program)] = programs(place / "model" / "README.md", "Roslin")
    ask, serve = commands.splitlines()
    assert run(place, "-c", program).strip()
    question = re.fullmatch(r'roslin ask ./model "(.*)"', ask)
    assert question
    assert run(place, "-m", "roslin", "ask", "./model", question[1], "--seed", "1").strip()
    assert serve == "roslin serve ./model"  # tests/serve runs it


@pytest.mark.full
def test_transformers_pipeline_answers(place: Path) -> None:
    [(_, program)] = programs(place / "model" / "README.md", "transformers")
    assert run(place, "-c", program).strip()


@pytest.mark.full
@pytest.mark.parametrize(
    ("packages", "heading"),
    [(("langchain-huggingface",), "LangChain"), (("modelscope[framework]==1.40.2",), "ModelScope")],
    ids=["langchain", "modelscope"],
)
def test_other_interfaces_answer(
    place: Path, packages: tuple[str, ...], heading: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment(tmp_path / "env", *packages, alone=False)
    [(_, program)] = programs(place / "model" / "README.md", heading)
    monkeypatch.chdir(place)
    assert answered(python, program, cache=tmp_path).strip()


@pytest.mark.full
def test_a_folder_without_the_pipelines_files_shows_how_transformers_loads_it(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "model", tmp_path / "model")
    for name in ("instruct_pipeline.py", "configuration.json"):
        (tmp_path / "model" / name).unlink()
    files = ModelFiles.of(tmp_path / "model")
    text = usage(CardFacts("theirs", files))
    assert "ModelScope" not in text
    assert "trust_remote_code" not in text
    [program] = [program for _, program in PROGRAM.findall(text) if "AutoModelForCausalLM" in program]
    run(tmp_path, "-c", program)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")
def test_pefts_program_loads_the_adapter_beside_its_base(base_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    records = files("roslin") / "assets" / "records" / "starter.jsonl"
    (tmp_path / "mine.jsonl").write_text("".join(records.read_text().splitlines(keepends=True)[:24]))
    values = {"model": "base", "records": [str(tmp_path / "mine.jsonl")], "output": str(tmp_path / "run")}
    short = {"epochs": 1, "row_length": 512, "max_length": 512, "learning_rate": 1e-3, "device": "cpu"}
    recipe = Recipe.parse(values | short | {"held_out": {"fraction": 0.2}, "adapter": {"rank": 2, "merge": False}})
    tune(recipe, restart=False, console=Console(file=io.StringIO()))
    shutil.copytree(tmp_path / "run" / "adapter", tmp_path / "adapter")
    export("base", tmp_path / "base", format_of("hf"))
    [(_, program)] = programs(tmp_path / "adapter" / "README.md", "PEFT")
    shown = (
        "\nids = tokenizer('### Instruction:\\nHi\\n\\n### Response:\\n', return_tensors='pt').input_ids"
        "\nimport json, torch\nwith torch.no_grad(): print(json.dumps([ids.tolist(), "
        "model.float()(ids).logits[0, -1].tolist()]))"
    )
    ids, theirs = json.loads(run(tmp_path, "-c", program + shown).splitlines()[-1])
    found = load_adapted(tmp_path / "adapter", dtype=torch.float32, merged=False)
    own = decoder_logits(found, ids)[-1]
    torch.testing.assert_close(torch.tensor(theirs)[: len(own)], own[: len(theirs)], atol=2e-3, rtol=0)
