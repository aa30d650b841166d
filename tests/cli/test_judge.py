"""`roslin judge` as people and scripts run it."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pairwise_played import Played, completion, failure, key_of, playing
from roslin.cli.main import app
from roslin.errors import RoslinError
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox

Judge = Callable[..., "Done"]
KEY = "sk-very-secret-key"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> tuple[str, str]:
    """Two tiny random models whose tokenizers have Dolly's keys."""
    folders = tmp_path_factory.mktemp("alpha"), tmp_path_factory.mktemp("beta")
    for seed, folder in enumerate(folders):
        tokenizer = Tokenizer.load(base_folder)
        tokenizer.add_keys()
        tiny_gpt_neox(folder, vocab_size=tokenizer.size, seed=seed)
        tokenizer.save(folder)
    return str(folders[0]), str(folders[1])


@pytest.fixture
def played() -> Iterator[Callable[..., Played]]:
    with playing() as make:
        yield make


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Runs `roslin judge` in a folder of its own, in this process: a new one would import torch each time."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, **variables: str) -> Done:
        found = CliRunner().invoke(app, ["judge", *map(str, words)], env=variables)
        error = found.exception
        if isinstance(error, RoslinError):
            return Done(error.exit_code, found.stdout, f"{found.stderr}{error}")
        assert error is None or isinstance(error, SystemExit), repr(error)
        return Done(found.exit_code, found.stdout, found.stderr)

    return run


def write_records(path: Path, count: int, **last: str) -> Path:
    rows = [{"instruction": f"Say {n}.", "context": "", "response": "Yes.", "category": f"c{n % 2}"}
            for n in range(count)]  # fmt: skip
    rows[-1] |= last
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def filled_of(key: dict[str, Any], name: str, choices: dict[int, str]) -> str:
    verdicts = [{"item": item, "choice": choice, "remark": ""} for item, choice in choices.items()]
    return json.dumps({"kind": "roslin pairwise verdicts", "sheet": key["sheet"], "judge": name, "verdicts": verdicts})


def test_from_two_models_to_a_score(judge: Judge, models: tuple[str, str], tmp_path: Path) -> None:
    from roslin.answer import Roslin

    records = write_records(tmp_path / "r.jsonl", 7, context="far too long " * 400)
    how = ["--records", records, "--count", "9", "--max-new-tokens", "8", "--dtype", "float32"]
    made = judge("sheet", *models, *how, "--out", "s.html")
    assert made.returncode == 0, made.stderr
    assert "there are 7 records" in made.stderr
    assert "1 of the records are too long" in made.stderr
    assert "6 pairs" in made.stdout
    page, key = (tmp_path / "s.html").read_text("utf-8"), json.loads((tmp_path / "s.key.json").read_text("utf-8"))
    assert (key["model_a"], key["model_b"], key["left_out"], key["settings"]["seed"]) == (*models, 1, 42)
    for model in models:
        assert model not in page
    item = key["items"][3]
    asked = item["pair"]["instruction"]
    sides = {"a": "left", "b": "right"} if item["left_is"] == "a" else {"a": "right", "b": "left"}
    for model, name in zip(models, "ab", strict=True):
        alone = Roslin.load(model, dtype="float32").answer(asked, seed=42, max_new_tokens=8)
        assert item["pair"][sides[name]] == alone.text
    again = judge("sheet", *models, *how, "--out", "t.html")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "t.html").read_text("utf-8") == page
    refused = judge("sheet", *models, *how, "--out", "s.html")
    assert refused.returncode == 2
    assert "s.html and s.key.json would be overwritten" in refused.stderr
    (tmp_path / "ann.json").write_text(filled_of(key, "Ann", {1: "left", 2: "tie", 6: "both_bad"}))
    (tmp_path / "bo.json").write_text(filled_of(key, "Bo", {1: "left", 2: "right"}))
    shown = judge("score", "s.key.json", "ann.json", "bo.json")
    assert shown.returncode == 0, shown.stderr
    for words in (f"A is {models[0]}", "6 pairs, 2 judges; 3 not judged by anybody", "c0", "judge Ann", "Sign test",
                  "Ann and Bo agree in 50% of 2 common pairs", "Judge Bo: 4 not answered"):  # fmt: skip
        assert words in shown.stdout, shown.stdout
    (tmp_path / "evil.json").write_text(filled_of(key, "\x1b[2JEve [red]", {1: "left"}))
    shown = judge("score", "s.key.json", "ann.json", "evil.json")
    assert "\x1b" not in shown.stdout
    assert "Judge \ufffd[2JEve [red]: 5 not answered" in shown.stdout
    told = json.loads(judge("score", "s.key.json", "ann.json", "--json").stdout)
    assert (told["overall"]["pairs"], told["judges"][0]["unanswered"]) == (3, 3)


def test_what_cannot_be_scored_is_refused(judge: Judge, tmp_path: Path) -> None:
    key = key_of("abab")
    (tmp_path / "s.key.json").write_bytes(key.as_json())
    (tmp_path / "ann.json").write_text(filled_of({"sheet": key.sheet}, "Ann", {9: "left"}))
    (tmp_path / "bo.json").write_text(filled_of({"sheet": "0" * 64}, "Bo", {1: "left"}))
    done = judge("score", "s.key.json", "ann.json", "bo.json")
    assert done.returncode == 1
    assert "ann.json: there is no item 9" in done.stderr
    assert "bo.json: it is filled for another sheet" in done.stderr
    assert judge("score", "ann.json", "bo.json").returncode == 1


def honest(body: dict[str, Any], number: int) -> Any:
    """Prefers the left answers of `key_of`, which begin with L."""
    content = body["messages"][0]["content"]
    first = content.partition("<first_answer>\n")[2]
    return completion(f"VERDICT: {'FIRST' if first.startswith('L') else 'SECOND'}")


def test_a_model_judges_a_sheet(judge: Judge, played: Callable[..., Played], tmp_path: Path) -> None:
    """With a key in the environment, which is sent and never written; one pair fails at first, and is asked again."""
    (tmp_path / "s.key.json").write_bytes(key_of("aaabb").as_json())
    states = {"broken": True}

    def play(body: dict[str, Any], number: int) -> Any:
        if states["broken"] and "Question 4?" in body["messages"][0]["content"]:
            return failure(400, f"no room for {KEY}")
        return honest(body, number)

    server = played(play)
    how = ["ask", "s.key.json", "--endpoint", server.url, "--judge-model", "big", "--out", "big.json"]
    first = judge(*how, "--api-key-env", "MY_KEY", MY_KEY=KEY)
    assert first.returncode == 1
    assert "4 of 5 pairs judged, 0 of them differently" in first.stdout
    assert "1 of 5 pairs have no verdict, and none was made up:\n  pair 4: " in first.stderr
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in server.headers)
    states["broken"] = False
    before = len(server.bodies)
    second = judge(*how, "--api-key-env", "MY_KEY", MY_KEY=KEY)
    assert second.returncode == 0, second.stderr
    assert len(server.bodies) == before + 2, "only what was missing"
    for path in tmp_path.iterdir():
        assert KEY not in path.read_text("utf-8")
    assert KEY not in first.stdout + first.stderr + second.stdout + second.stderr
    asked = json.loads((tmp_path / "big.json").read_text("utf-8"))["asked"]
    assert (asked["endpoint"], asked["model"], asked["temperature"]) == (server.url, "big", 0.0)
    assert "{first}" in asked["prompt"]
    assert "VERDICT: BOTH BAD" in asked["prompt"]
    told = json.loads(judge("score", "s.key.json", "big.json", "--json").stdout)
    assert (told["overall"]["wins"], told["overall"]["losses"]) == (3, 2)
    assert told["judges"][0]["orders"]["inconsistent"]["estimate"] == 0.0
    shown = judge("score", "s.key.json", "big.json").stdout
    assert "the one shown first 50%" in shown


def test_a_model_sees_what_people_see(judge: Judge, played: Callable[..., Played], tmp_path: Path) -> None:
    from roslin.evaluate.pairwise import Answered, make_key
    from roslin.records import Record

    answered = [Answered(Record(instruction="Why?", response="Because."), "x", "y")]
    server = played(lambda body, number: completion("VERDICT: TIE"))
    (tmp_path / "mine.txt").write_text("{instruction}{context}{first}{second} by {reference}")
    how = ["--endpoint", server.url, "--judge-model", "m"]
    for shown in (True, False):
        key = make_key(answered, ("a", "b"), seed=1, settings={}, with_reference=shown)
        (tmp_path / "s.key.json").write_bytes(key.as_json())
        assert judge("ask", "s.key.json", *how, "--out", f"{shown}.json").returncode == 0
        assert ("Because." in server.bodies[-1]["messages"][0]["content"]) == shown
        own = judge("ask", "s.key.json", *how, "--out", f"own-{shown}.json", "--template", "mine.txt")
        assert own.returncode == (0 if shown else 1)
    assert "made without --reference" in own.stderr


def test_an_endpoint_that_refuses_ends_the_command(judge: Judge, played: Callable[..., Played], tmp_path: Path) -> None:
    (tmp_path / "s.key.json").write_bytes(key_of("ab" * 20).as_json())
    server = played(lambda body, number: failure(401, "who are you?"))
    done = judge(
        "ask", "s.key.json", "--endpoint", server.url, "--judge-model", "big", "--out", "big.json"
    )  # fmt: skip
    assert done.returncode == 1
    assert "who are you?" in done.stderr
    assert "the judge was given up" in done.stderr
    assert not (tmp_path / "big.json").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--endpoint", "localhost:1", "--out", "o.json"], "no address such as"),
        (["--endpoint", "http://localhost:1", "--out", "o.txt"], "ends in .json"),
        (["--endpoint", "http://localhost:1", "--out", "o.json", "--api-key-env", "NOT_SET"], "NOT_SET is not set"),
        (["--endpoint", "http://localhost:1", "--out", "o.json", "--body", "[1]"], "not a JSON object"),
        (["--endpoint", "http://localhost:1", "--out", "o.json", "--body", "{"], "not JSON"),
        (["--endpoint", "http://localhost:1", "--out", "person.json"], "is there already"),
    ],
)
def test_commands_put_wrongly(judge: Judge, words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "s.key.json").write_bytes(key_of("ab").as_json())
    (tmp_path / "person.json").write_text("{}")
    done = judge("ask", "s.key.json", "--judge-model", "m", *words)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert (tmp_path / "person.json").read_text() == "{}"


def test_a_sheet_without_a_place_is_told_before_any_work(judge: Judge, tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", 2)
    (tmp_path / "file").write_text("")
    done = judge("sheet", "no-such-model", "base", "--records", "r.jsonl", "--out", "file/s.html")
    assert done.returncode == 3
    assert "s.html cannot be written" in done.stderr
    assert "no-such-model" not in done.stderr


def test_both_models_are_looked_for_before_one_answers(judge: Judge, tmp_path: Path) -> None:
    write_records(tmp_path / "r.jsonl", 2)
    done = judge("sheet", "base", "no-such-model", "--records", "r.jsonl", "--out", "s.html")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr
    assert "answers 2 records" not in done.stderr


def test_scoring_does_not_wait_for_torch() -> None:
    code = "import sys, roslin.cli.judge_score, roslin.evaluate.pairwise; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
