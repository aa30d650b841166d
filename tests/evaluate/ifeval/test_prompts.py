"""Prompts in IFEval's layout: our own set, files, and the hub."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from roslin.errors import InputError, UsageError
from roslin.evaluate.ifeval import CHECKS, Instruction, load_prompts

ROW: dict[str, Any] = {
    "key": 1000,
    "prompt": "Say so, without commas.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"num_words": 5, "relation": "at least"}],
}


def written(path: Path, *rows: object) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_our_own_set_asks_for_every_kind_more_than_once() -> None:
    prompts = load_prompts()
    kinds = Counter(instruction.kind for prompt in prompts for instruction in prompt.instructions)
    assert len(prompts) >= 60
    assert kinds.keys() == CHECKS.keys()
    assert min(kinds.values()) >= 2
    assert len({prompt.prompt for prompt in prompts}) == len(prompts)


def test_what_a_prompt_of_our_own_asks_for_is_said_in_it() -> None:
    for prompt in load_prompts():
        for instruction in prompt.instructions:
            for name, value in instruction.arguments.items():
                if name in ("keyword", "first_word", "prompt_to_repeat", "end_phrase", "postscript_marker"):
                    assert value in prompt.prompt
                for word in value if isinstance(value, list) else []:
                    assert word.lower() in prompt.prompt.lower()


def test_a_file_in_the_layout_of_the_hub_is_read(tmp_path: Path) -> None:
    nulls = {"num_words": None, "relation": None, "keywords": None}
    row = {**ROW, "kwargs": [nulls, {**nulls, "num_words": 5, "relation": "at least"}]}
    [prompt] = load_prompts(written(tmp_path / "ifeval.jsonl", row, "  "))
    assert prompt.key == 1000
    assert prompt.instructions == (
        Instruction("punctuation:no_comma", {}),
        Instruction("length_constraints:number_words", {"num_words": 5, "relation": "at least"}),
    )
    assert prompt.is_checked


def test_the_language_of_an_answer_is_read_but_not_checked(tmp_path: Path) -> None:
    row = {**ROW, "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]}
    [prompt] = load_prompts(written(tmp_path / "ifeval.jsonl", row))
    assert not prompt.is_checked


def test_all_that_is_wrong_is_listed_with_its_place(tmp_path: Path) -> None:
    rows = [
        ROW,
        "{no json",
        [1],
        {"key": "x", "prompt": " ", "instruction_id_list": [], "kwargs": 3},
        {**ROW, "key": 2, "kwargs": [{}]},
        {**ROW, "key": 3, "instruction_id_list": ["punctuation:no_dots"], "kwargs": [{}]},
        {**ROW, "key": 4, "kwargs": [{"comma": 1}, {"num_words": -1}]},
        {**ROW, "key": 5, "kwargs": [{}, {"num_words": True, "relation": "at most"}]},
        {**ROW, "key": 6, "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "gull"}]},
        ROW,
        "[" * 100_000,
    ]
    path = written(tmp_path / "ifeval.jsonl", *rows)
    with pytest.raises(InputError) as error:
        load_prompts(path)
    told = str(error.value)
    for part in (
        ":2: not JSON",
        ":3: not a JSON object",
        ":4: key must be a whole number",
        ":4: prompt must be a text",
        ":4: instruction_id_list must be a list of names",
        ":4: kwargs must be a list of objects",
        ":5: instruction_id_list names 2 instructions, and kwargs has 1",
        ":6: there is no instruction 'punctuation:no_dots'",
        ":7: punctuation:no_comma has no comma",
        ":7: length_constraints:number_words lacks relation",
        ":7: length_constraints:number_words: num_words is -1",
        ":8: length_constraints:number_words: num_words is True",
        ":8: length_constraints:number_words: relation is 'at most'; it must be 'less than' or 'at least'",
        ":9: keywords:existence: keywords is 'gull'; it must be a list of texts",
        f":10: its key, 1000, is that of {path}:1 too",
        ":11: not JSON",
    ):
        assert part in told, part
    assert f"{path}:1:" not in told


def test_a_file_without_prompts_or_of_other_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prompts"):
        load_prompts(written(tmp_path / "empty.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"key": 1, "prompt": "\xe9"}')
    with pytest.raises(InputError, match="not valid UTF-8 at byte 22"):
        load_prompts(tmp_path / "latin.jsonl")


def test_the_hub_is_asked_for_what_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def load_dataset(name: str, split: str) -> list[dict[str, Any]]:
        asked.append((name, split))
        if name != "google/IFEval":
            raise OSError("no such dataset\nmore")
        return [ROW]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert [prompt.key for prompt in load_prompts("google/IFEval")] == [1000]
    assert asked == [("google/IFEval", "train")]
    with pytest.raises(InputError, match=r"nobody/nothing: no such file here.*: no such dataset$"):
        load_prompts("nobody/nothing")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="pip install"):
        load_prompts("google/IFEval")
