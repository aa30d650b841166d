"""`roslin records …` as a person types it: what is printed where, and the exit codes."""

import gzip
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pytest

from roslin.cli.main import main
from roslin.records import load, split_by_hash

GOOD = {"instruction": "Name a river.", "context": "", "response": "The Rhine.", "category": "open_qa"}


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Roslin = Callable[..., Ran]


@pytest.fixture
def roslin(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Roslin:
    def run(*arguments: str | Path) -> Ran:
        monkeypatch.setattr(sys, "argv", ["roslin", "records", *map(str, arguments)])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        captured = capsysbinary.readouterr()
        return Ran(int(left.value.code or 0), captured.out.decode(), captured.err.decode())

    return run


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def questions(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {**GOOD, "instruction": f"Question number {n}?", "response": f"Answer {n * 7919}.", **more}
        for n in range(count)
    ]


def test_sound_records(roslin: Roslin, tmp_path: Path) -> None:
    ran = roslin("check", write(tmp_path / "r.jsonl", GOOD))
    assert (ran.code, ran.out, ran.err) == (0, "1 record: 0 errors, 0 warnings.\n", "")


def test_errors_with_place_and_summary(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {**GOOD, "response": "### End"}, "{", {**GOOD, "category": "odd"})
    ran = roslin("check", path)
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"error: {path}:1: response: holds '### End'")
    assert lines[0].endswith("[prompt-key]")
    assert lines[1].startswith(f"error: {path}:2: Broken JSON")
    assert lines[2].startswith(f"warning: {path}:3: category: 'odd'")
    assert any(line.split()[1:6:2] == ["prompt-key", "error", "1"] for line in lines if "│" in line)
    assert lines[-1] == "3 records: 2 errors, 1 warning in 3 records."


def test_json_is_one_object_of_the_agreed_form(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", GOOD, {**GOOD, "response": ""}, {**GOOD, "instruction": "Else?", "id": 1})
    ran = roslin("check", path, "--json")
    assert ran.code == 1
    found = json.loads(ran.out)
    assert list(found) == ["records", "errors", "warnings"]
    assert found["records"] == 3
    for finding in (*found["errors"], *found["warnings"]):
        assert list(finding) == ["file", "line", "field", "code", "message"]
        assert isinstance(finding["line"], int)
        assert finding["message"]
    assert [(f["file"], f["line"], f["field"], f["code"]) for f in found["errors"]] == [
        (str(path), 2, "response", "empty-field")
    ]
    assert [(f["line"], f["field"], f["code"]) for f in found["warnings"]] == [(3, "id", "unknown-field")]


def test_warnings_count_only_under_strict(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", GOOD, GOOD)
    assert roslin("check", path).code == 0
    assert roslin("check", path, "--strict").code == 1


def test_many_findings_are_shown_in_part_and_said_to_be(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", *["{"] * 30)
    assert roslin("check", path, "--show", "5").out.count("Broken JSON") == 5
    assert "… and 25 more of json" in roslin("check", path, "--show", "5").out
    assert roslin("check", path, "--show", "0").out.count("Broken JSON") == 30


def test_mapping(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"question": "Q?", "response": "A."})
    assert roslin("check", path).code == 1
    assert roslin("check", path, "--strict", "--map", "question=instruction").code == 0
    ran = roslin("check", path, "--map", "question", "--map", "question=task")
    assert ran.code == 2
    assert "COLUMN=FIELD" in ran.err
    assert "'task' is no field" in ran.err
    assert "'question' is given to more than one field" in ran.err
    ran = roslin("check", path, "--map", "question=instruction", "--map", "questoin=context", "--json")
    assert ran.code == 1
    assert [(f["field"], f["code"]) for f in json.loads(ran.out)["errors"]] == [("questoin", "missing-field")]
    for command in (("stats", path), ("dedupe", path, tmp_path / "out.jsonl")):
        ran = roslin(*command, "--map", "question=instruction", "--map", "questoin=context")
        assert ran.code == 1
        assert "questoin: was named as the context (--map), and no record has it" in ran.err
        assert "question, response" in ran.err
    assert not (tmp_path / "out.jsonl").exists()


def test_fix(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", GOOD, "{", {**GOOD, "response": ""})
    out = tmp_path / "clean.jsonl"
    ran = roslin("check", path, "--fix", out)
    assert ran.code == 1
    assert rows_of(out) == [GOOD]
    assert [row["line"] for row in rows_of(tmp_path / "clean.rejects.jsonl")] == [2, 3]
    assert "1 records that pass" in ran.err
    assert roslin("check", out).code == 0
    assert roslin("check", path, "--fix", path).code == 2
    held_out = write(tmp_path / "held.jsonl", {**GOOD, "instruction": "Another?"})
    assert roslin("check", path, "--held-out", held_out, "--fix", held_out).code == 2
    assert rows_of(held_out) == [{**GOOD, "instruction": "Another?"}]
    assert roslin("check", path, "--fix", tmp_path / "clean.csv").code == 2


def test_tokens_by_the_models_own_limit(roslin: Roslin, tmp_path: Path, base_folder: Path) -> None:
    path = write(tmp_path / "r.jsonl", GOOD, {**GOOD, "response": "sheep " * 3000})
    assert "too-long" not in roslin("check", path).out
    for name in ("base", base_folder):
        assert f"{path}:2: The record is " in roslin("check", path, "--tokenizer", name).out
    assert "2,048 or more" in roslin("check", path, "--model", base_folder).out
    assert "100 or more" in roslin("check", path, "--model", base_folder, "--max-length", "100").out
    assert roslin("check", path, "--max-length", "100").code == 2
    assert roslin("check", path, "--tokenizer", "base", "--max-length", "0").code == 2
    small = tmp_path / "model"
    small.mkdir()
    (small / "tokenizer.json").write_bytes((base_folder / "tokenizer.json").read_bytes())
    (small / "config.json").write_text('{"n_positions": 512}')
    (small / "model.safetensors").touch()
    for name in (small, small / "model.safetensors", small / "tokenizer.json"):
        assert "512 or more" in roslin("check", path, "--model", name).out
    (small / "config.json").write_text("[]")
    assert roslin("check", path, "--model", small).code == 1


def test_names_and_texts_are_printed_as_they_stand(roslin: Roslin, tmp_path: Path) -> None:
    """No markup, no emoji codes (`:100:` is one), and bytes of a name that are not UTF-8 written out."""
    (tmp_path / "[").mkdir()
    marked = write(tmp_path / "[" / "red].jsonl", *[GOOD] * 99, "{", {**GOOD, "category": "[/x] :cat:"})
    ran = roslin("check", marked, "--fix", tmp_path / "[" / "out].jsonl")
    assert f"error: {marked}:100: Broken JSON" in ran.out
    assert f"{tmp_path}/[/out].jsonl" in ran.err
    assert "[/x] :cat:" in roslin("stats", marked).out
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl"))
    write(odd, "{")
    assert "\\udcff.jsonl:1: Broken JSON" in roslin("check", odd).out
    assert json.loads(roslin("check", odd, "--json").out)["errors"][0]["file"].endswith("\\udcff.jsonl")
    assert "\\udcff.jsonl" in roslin("stats", odd).out


def test_leaks_and_privacy(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {**GOOD, "response": "Write to a@roslin.uk."})
    held_out = write(tmp_path / "h.jsonl", GOOD)
    ran = roslin("check", path, "--held-out", held_out)
    assert ran.code == 1
    assert f"{held_out}:1" in ran.out
    ran = roslin("check", path, "--privacy")
    assert ran.code == 0
    assert "Personal or secret matter, in records: 1 with e-mail." in ran.out


def test_paths_with_nothing_behind_them(roslin: Roslin, tmp_path: Path) -> None:
    ran = roslin("check", tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert ran.code == 1
    assert ran.out == ""
    assert "a.jsonl: no such file" in ran.err
    assert "b.jsonl: no such file" in ran.err


def test_stats(roslin: Roslin, tmp_path: Path) -> None:
    rows = [*questions(30, category="open_qa"), *questions(10, category="closed_qa", context="Some context.")]
    path = write(tmp_path / "r.jsonl", *rows, {**GOOD, "response": "sheep " * 3000}, "{")
    ran = roslin("stats", path)
    assert ran.code == 0
    assert "42 records, 10 of them with context." in ran.out
    assert "Left out for errors: 1." in ran.out
    assert "█" in ran.out
    assert "1 record of 2,048 tokens or more" in ran.out
    found = json.loads(roslin("stats", path, "--json").out)
    assert found["categories"] == {"open_qa": 31, "closed_qa": 10}
    assert found["lengths"]["records"] == 41


def test_stats_of_files_that_cannot_be_read_are_refused_with_all_of_them(roslin: Roslin, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 9)[:-9])
    ran = roslin("stats", write(tmp_path / "r.jsonl", GOOD), write(tmp_path / "empty.jsonl"), cut)
    assert (ran.code, ran.out) == (1, "")
    assert "empty.jsonl:1: The file holds no records" in ran.err
    assert "cut.jsonl.gz:1: The file cannot be read" in ran.err


def test_split_by_hash_is_clean_of_leaks_and_stays(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", *questions(300), *questions(50, category="brainstorming"))
    held_out, train = tmp_path / "held.jsonl", tmp_path / "train.jsonl"
    assert roslin("split", path, "--held-out", held_out, "--train", train, "--fraction", "0.2").code == 0
    assert len(rows_of(held_out)) + len(rows_of(train)) == 350
    assert 40 < len(rows_of(held_out)) < 110
    assert roslin("check", train, "--held-out", held_out, "--no-near").code == 0
    before = rows_of(held_out)
    write(path, *questions(600))
    assert roslin("split", path, "--held-out", held_out, "--train", train, "--fraction", "0.2").code == 0
    after = rows_of(held_out)
    assert all(row in after for row in before if row["category"] == "open_qa")


def test_what_a_split_leaves_to_train_on_can_be_split_again_by_a_recipe(roslin: Roslin, tmp_path: Path) -> None:
    path, train, held_out = (tmp_path / name for name in ("r.jsonl", "train.jsonl", "held.jsonl"))
    write(path, *questions(600))
    assert roslin("split", path, "--held-out", held_out, "--train", train).code == 0
    left = load([str(train)])
    assert 0.02 < len(split_by_hash(left, 0.05)[1]) / len(left) < 0.1  # a recipe's default
    assert roslin("split", path, "--held-out", held_out, "--train", train, "--salt", "").code == 0
    assert [record.instruction for record in load([str(held_out)])] == [
        record.instruction for record in split_by_hash(load([str(path)]), 0.1)[1]
    ]


def test_split_like_dolly_picks_what_datasets_picks(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", *questions(1500))
    held_out, train = tmp_path / "held.jsonl", tmp_path / "train.jsonl"
    for arguments, size in (((), 1000), (("--test-size", "200"), 200)):
        assert roslin("split", path, "--held-out", held_out, "--train", train, "--like", "dolly", *arguments).code == 0
        whole = datasets.Dataset.from_list(questions(1500))
        peer = whole.shuffle(seed=42).train_test_split(test_size=size, seed=42)
        assert rows_of(held_out) == peer["test"].to_list()
        assert rows_of(train) == peer["train"].to_list()


def test_split_by_count_and_wrong_usage(roslin: Roslin, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", *questions(20))
    outputs = ("--held-out", tmp_path / "held.jsonl", "--train", tmp_path / "train.jsonl")
    assert roslin("split", path, *outputs, "--count", "5").code == 0
    assert len(rows_of(tmp_path / "held.jsonl")) == 5
    for wrong in (
        ("--count", "20"),
        ("--fraction", "2"),
        ("--like", "sheep"),
        ("--count", "5", "--fraction", "0.1"),
        ("--fraction", "0"),
        ("--fraction", "1"),
        ("--count", "0", "--like", "dolly"),
        ("--count", "5", "--seed", "1"),
        ("--count", "5", "--like", "dolly", "--salt", "x"),
    ):
        assert roslin("split", path, *outputs, *wrong).code == 2, wrong
    ran = roslin("split", path, *outputs, "--like", "sheep", "--fraction", "0.1", "--salt", "x")
    assert len(ran.err.splitlines()) == 3
    assert roslin("split", path, "--held-out", path, "--train", tmp_path / "train.jsonl").code == 2
    assert roslin("split", path, "--held-out", tmp_path / "x.jsonl", "--train", tmp_path / "x.jsonl").code == 2
    assert roslin("split", write(tmp_path / "bad.jsonl", "{"), *outputs).code == 1


def test_dedupe(roslin: Roslin, tmp_path: Path) -> None:
    near = {**GOOD, "instruction": "NAME a river!"}
    path = write(tmp_path / "r.jsonl", GOOD, near, *questions(3), GOOD)
    out = tmp_path / "out.jsonl"
    ran = roslin("dedupe", path, out)
    assert ran.code == 0
    assert rows_of(out) == [GOOD, near, *questions(3)]
    assert ran.out == "record 6: the same as record 1; removed\n"
    ran = roslin("dedupe", path, out, "--near", "--json")
    assert json.loads(ran.out) == {
        "records": 6,
        "kept": 4,
        "removed": [
            {"record": 2, "kept": 1, "similarity": 1.0},
            {"record": 6, "kept": 1, "similarity": 1.0},
        ],
    }
    assert rows_of(out) == [GOOD, *questions(3)]
    assert roslin("dedupe", path, path).code == 2
