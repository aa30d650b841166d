"""Filled files that must not be counted, and keys that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from pairwise_played import key_of
from roslin.errors import InputError
from roslin.evaluate.pairwise import Filled, Verdict, read_filled, read_key

KEY = key_of("abba")


def saved(path: Path, judge: str = "Ann", verdicts: Any = ((1, "left"),), **others: Any) -> Path:
    lines = [{"item": item, "choice": choice, "remark": ""} for item, choice in verdicts]
    content = {"kind": "roslin pairwise verdicts", "sheet": KEY.sheet, "judge": judge, "verdicts": lines, **others}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_what_the_page_saves_is_read(tmp_path: Path) -> None:
    [found] = read_filled([saved(tmp_path / "a.json", verdicts=[(1, "left"), (4, "both_bad"), (2, None)])], KEY)
    assert [(v.item, v.choice) for v in found.verdicts] == [(1, "left"), (4, "both_bad"), (2, None)]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    verdict = Verdict(item=2, choice="tie", orders=("left", "right"), replies=("VERDICT: FIRST", "VERDICT: FIRST"))
    filled = Filled(sheet=KEY.sheet, judge="m", verdicts=(verdict,), asked={"model": "m"})
    (tmp_path / "m.json").write_bytes(filled.as_json())
    assert read_filled([tmp_path / "m.json"], KEY) == [filled]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / "good.json"),
        saved(tmp_path / "other-sheet.json", "Bo", sheet="f" * 64),
        saved(tmp_path / "unknown.json", "Cy", [(0, "left"), (5, "tie"), (1, "left"), (1, "right")]),
        saved(tmp_path / "bad-choice.json", "Di", [(1, "left"), (2, "LEFT"), (3, 1)]),
        saved(tmp_path / "twice.json", " ann "),
        saved(tmp_path / "nameless.json", "  "),
        tmp_path / "missing.json",
        tmp_path / "no.json",
    ]
    files[-1].write_text("{", encoding="utf-8")
    with pytest.raises(InputError) as told:
        read_filled(files, KEY)
    text = str(told.value)
    for words in (
        "other-sheet.json: it is filled for another sheet (ffffffffffff…",
        "unknown.json: there is no item 0",
        "unknown.json: there is no item 5",
        "unknown.json: item 1 is judged 2 times",
        "bad-choice.json: verdicts.2.choice ('LEFT')",
        "bad-choice.json: verdicts.3.choice (1)",
        "twice.json: judge ' ann ' has filled",
        "nameless.json: the judge has no name",
        "missing.json cannot be read",
        "no.json: Invalid JSON",
    ):
        assert words in text, text
    assert "good.json:" not in text


def test_a_key_is_read_back_and_a_changed_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "sheet.key.json"
    path.write_bytes(KEY.as_json())
    assert read_key(path) == KEY
    path.write_bytes(KEY.as_json().replace(b'"L2"', b'"better"'))
    with pytest.raises(InputError, match="was changed after it was written"):
        read_key(path)
    path.write_bytes(KEY.as_json().replace(b'"left_is": "b"', b'"left_is": "c"').replace(b'"seed": 1', b'"seed": "x"'))
    with pytest.raises(InputError, match=r"(?s)seed \('x'\).*items.2.left_is \('c'\)"):
        read_key(path)
    with pytest.raises(InputError, match="is not the key of a sheet"):
        read_key(saved(path))
