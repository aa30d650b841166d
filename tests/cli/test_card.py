"""`roslin card` as people run it, on folders that runs, evaluations and others left."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from harness_tasks import write_jsonl
from in_process import Run, command_in
from made_evidence import everything, tuning
from roslin.errors import InputError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scorer import ChoiceScore
from roslin.evaluate.store import Identity, Store
from roslin.evaluate.tasks import TASKS
from roslin.model.fingerprint import fingerprint
from roslin.publish.card import write_first_card
from roslin.publish.evidence import read_evidence, write_evidence
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A tiny random model whose tokenizer has Dolly's keys; nobody says how it was made."""
    folder = tmp_path_factory.mktemp("made") / "model"
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    tiny_gpt_neox(folder, vocab_size=tokenizer.size)
    tokenizer.save(folder)
    return folder


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def tuned(model: Path) -> Path:
    """The same as if the run of `made_evidence` had just written it."""
    write_first_card(model, tuning(fingerprint=fingerprint(model)))
    return model


@pytest.fixture
def roslin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command in this process and a folder of its own."""
    return command_in(tmp_path, monkeypatch, capsys)


def test_a_folder_that_somebody_made_gets_a_card_that_claims_nothing(roslin: Run, model: Path) -> None:
    done = roslin("card", model)
    assert done.code == 0, done.err
    assert done.out.strip() == str(model / "README.md")
    assert "warning: the licence of the model" in done.err
    assert "Not measured: the benchmarks of Dolly's card: roslin eval MODEL --card" in done.err
    text = (model / "README.md").read_text()
    assert "Not recorded: how the model was made" in text
    assert not (model / "roslin.json").exists()
    again = roslin("card", model, "--owner", "Me", "--license", "mit")
    assert again.code == 0
    assert "choose one" not in again.err
    stated = read_evidence(model).stated
    assert (stated.owner, stated.licence) == ("Me", "mit")
    assert roslin("card", model).code == 0  # remembered
    assert "**Owner:** Me" in (model / "README.md").read_text()
    assert ModelCard.load(model / "README.md").data.license == "mit"


def test_a_run_s_card_made_again_is_the_same(roslin: Run, tuned: Path) -> None:
    before = (tuned / "README.md").read_bytes()
    assert roslin("card", tuned).code == 0
    assert (tuned / "README.md").read_bytes() == before


def test_exported_weights_are_said_to_be_others(roslin: Run, tuned: Path) -> None:
    (tuned / "generation_config.json").write_text('{"eos_token_id": 5}')
    found = json.loads(roslin("card", tuned, "--json").out)
    assert not found["weights_as_tuned"]
    assert "not byte for byte" in (tuned / "README.md").read_text()


def fill(store: Path, weights: str, name: str, right: int) -> None:
    """Scores of every question of piqa, of which the first `right` are answered rightly."""
    task = TASKS["piqa"]
    questions = [Question((Choice(f"{n}", " a", 2), Choice(f"{n}", " b", 2)), 0) for n in range(task.size)]
    run = Store(store).run(Identity(weights, "raw", 0, "float32", "code"), name)
    run.ask("piqa", questions)
    good, bad = ChoiceScore(-1.0, 1, False), ChoiceScore(-2.0, 1, False)
    run.add("piqa", [(q, (good, bad) if n < right else (bad, good)) for n, q in enumerate(questions)])


def test_results_of_exactly_these_weights_and_their_base_come_from_the_store(
    roslin: Run, tuned: Path, tmp_path: Path
) -> None:
    store = tmp_path / "roslin-results.sqlite"
    fill(store, fingerprint(tuned), "mine", 1000)
    fill(store, tuning().base.fingerprint or "", "its base", 900)
    fill(store, "another model's", "a stranger", 1700)
    assert roslin("card", tuned).code == 0  # the store of this folder is found without being named
    text = (tuned / "README.md").read_text()
    assert "| piqa | 1,000 of 1,838 |" in text
    assert "| its base |" in text
    assert "Comparison of mine against its base" in text
    assert "a stranger" not in text
    [result] = ModelCard.load(tuned / "README.md").data.eval_results or []
    assert (result.dataset_type, result.metric_value) == ("baber/piqa", round(1000 / 1838, 6))
    [entry] = parse_eval_result_entries(yaml.safe_load((tuned / ".eval_results" / "roslin.yaml").read_text()))
    assert (entry.dataset_id, entry.value) == ("baber/piqa", round(1000 / 1838, 6))
    store.unlink()
    assert roslin("card", tuned).code == 0  # kept beside the model by now
    assert (tuned / "README.md").read_text() == text


def test_what_eval_kept_stands_in_the_card_made_again(roslin: Run, tuned: Path, tmp_path: Path) -> None:
    rows = [{"goal": f"Water plant {n}", "sol1": "take a can.", "sol2": "no.", "label": 0} for n in range(12)]
    (tmp_path / "data").mkdir()
    write_jsonl(tmp_path / "data" / "piqa_validation.jsonl", rows)
    records = [{"instruction": f"Name {n}.", "context": "", "response": "A.", "category": "qa"} for n in range(6)]
    write_jsonl(tmp_path / "held.jsonl", records)
    asked = ("--data", tmp_path / "data", "--tasks", "piqa", "--trained-on", tmp_path / "held.jsonl")
    assert roslin("eval", tuned, *asked, "--card").code == 0
    assert roslin("eval", tuned, "--limits", "--per-family", "1", "--card").code == 0
    judged = ("--records", tmp_path / "held.jsonl", "--greedy", "--max-new-tokens", "4")
    done = roslin("eval", tuned, *judged, "--card")
    assert done.code == 0, done.err
    assert "roslin.json beside it" in done.err
    kept = (tuned / "README.md").read_text()
    (tmp_path / "roslin-results.sqlite").unlink()
    assert roslin("card", tuned).code == 0
    again = (tuned / "README.md").read_text()
    for words in ("of 12 |", "| piqa | 0 of 12 |", "Each limitation that Dolly's card names", "Unselected samples"):
        assert words in kept
        assert words in again
    assert str(tmp_path) not in again + (tuned / "roslin.json").read_text()
    assert ".eval_results" not in [path.name for path in tuned.iterdir()]  # a part of a task is no result


def test_out_writes_one_file_and_nothing_else(roslin: Run, tuned: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tuned.iterdir()}
    done = roslin("card", tuned, "--out", tmp_path / "card.md", "--owner", "Me")
    assert done.code == 0, done.err
    assert "**Owner:** Me" in (tmp_path / "card.md").read_text()
    assert {path: path.read_bytes() for path in tuned.iterdir()} == before


def test_a_person_s_words_are_not_lost(roslin: Run, tuned: Path, model: Path) -> None:
    card = tuned / "README.md"
    card.write_text(card.read_text().replace("## Usage", "## Usage\n\nMine."))
    done = roslin("card", tuned)
    assert done.code == 1
    assert "has been edited" in done.err
    assert "Mine." in card.read_text()
    card.write_text("# Theirs\n")
    other = roslin("card", tuned)
    assert other.code == 1
    assert "--force" in other.err
    assert card.read_text() == "# Theirs\n"
    assert roslin("card", tuned, "--force").code == 0
    assert "## Model Overview" in card.read_text()


def test_wrong_folders_files_and_options_are_told(roslin: Run, tuned: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, code, told in (
        (("nowhere",), 1, "no such folder"),
        (("EleutherAI/pythia-2.8b",), 1, "no such folder"),
        ((tmp_path / "empty",), 1, "holds no model"),
        ((tuned / "config.json",), 1, "a file"),
        ((tuned, "--store", tmp_path / "none.sqlite"), 1, "no results here"),
        ((tuned, "--owner", " "), 2, "--owner is empty"),
        ((tuned, "--license", ""), 2, "--license is empty"),
    ):
        done = roslin("card", *words)
        assert (done.code, done.out) == (code, ""), (words, done)
        assert told in done.err
    (tuned / "roslin.json").write_text('{"format": 1, "tuning": {}}')
    before = (tuned / "README.md").read_bytes()
    broken = roslin("card", tuned)
    assert broken.code == 1
    assert "tuning.fingerprint: Field required" in broken.err
    assert (tuned / "README.md").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--out", "."], "is no file in a folder"),
        (["--out", "nowhere/card.md"], "is no file in a folder"),
        (["--owner", "A\udcff"], "is no text"),
        (["--license", "Apache 2.0"], "small letters"),
    ],
)
def test_options_that_cannot_be_are_told_before_the_work(words: list[str], told: str, roslin: Run, tuned: Path) -> None:
    before = (tuned / "README.md").read_bytes()
    done = roslin("card", tuned, *words)
    assert done.code == 2
    assert told in " ".join(done.err.split())
    assert (tuned / "README.md").read_bytes() == before


def test_metadata_behind_a_byte_order_mark_are_not_doubled(roslin: Run, tuned: Path) -> None:
    card = tuned / "README.md"
    plain = card.read_bytes()
    card.write_bytes(b"\xef\xbb\xbf" + plain)
    assert roslin("card", tuned).code == 0
    assert card.read_bytes() == plain


def test_an_adapter_without_its_base_claims_neither_change_nor_measurement(
    roslin: Run, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(folder: Path) -> str:
        raise InputError(f"{folder}: its base is not here.")

    write_evidence(tuned, everything().model_copy(update={"tuning": read_evidence(tuned).tuning}))
    monkeypatch.setattr("roslin.workflows.card.fingerprint", gone)
    found = json.loads(roslin("card", tuned, "--json").out)
    assert found["weights_as_tuned"] is None
    assert found["evidence"]["limits"] is None
    text = (tuned / "README.md").read_text()
    assert "could not be told" in text
    assert "not byte for byte" not in text
    assert read_evidence(tuned).limits  # kept, for when it can be told
