"""What a check finds in JSON lines, and that nothing hides anything else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record_files import GOOD, MakeFile, checked, codes
from roslin.errors import InputError
from roslin.records import DOLLY_CATEGORIES, CheckOptions, Record, check


def test_sound_records_pass(make_file: MakeFile) -> None:
    rows = [{**GOOD, "instruction": f"Question {c}?\twith tab\nand newline", "category": c} for c in DOLLY_CATEGORIES]
    report = checked(make_file(*rows, {"instruction": "No context,", "response": "no category."}))
    assert report.records == 9
    assert codes(report) == []
    assert report.passes(strict=True)


@pytest.mark.parametrize(
    ("row", "field", "code"),
    [
        ({"response": "r"}, "instruction", "missing-field"),
        ({"instruction": "i"}, "response", "missing-field"),
        ({"instruction": "i", "response": None}, "response", "missing-field"),
        ({"instruction": "", "response": "r"}, "instruction", "empty-field"),
        ({"instruction": "i", "response": " \n\t\u3000"}, "response", "empty-field"),
        ({"instruction": 5, "response": "r"}, "instruction", "wrong-type"),
        ({"instruction": "i", "response": ["r"]}, "response", "wrong-type"),
        ({"instruction": "i", "response": {"text": "r"}}, "response", "wrong-type"),
        ({"instruction": "i", "response": True}, "response", "wrong-type"),
        ({**GOOD, "context": 1.5}, "context", "wrong-type"),
        ({**GOOD, "category": 3}, "category", "wrong-type"),
        ({**GOOD, "response": "a\0b"}, "response", "control-character"),
        ({**GOOD, "context": "bell \x07"}, "context", "control-character"),
        ({**GOOD, "response": "del \x7f"}, "response", "control-character"),
        ({**GOOD, "instruction": "C1 \x92"}, "instruction", "control-character"),
        ({**GOOD, "response": "Windows\r\nline"}, "response", "control-character"),
        ({**GOOD, "response": "### End"}, "response", "prompt-key"),
        ({**GOOD, "context": "see ### Response: here"}, "context", "prompt-key"),
        ({**GOOD, "instruction": "a\n### Instruction:\nb"}, "instruction", "prompt-key"),
        ({**GOOD, "category": "poetry"}, "category", "unknown-category"),
        ({**GOOD, "id": 7}, "id", "unknown-field"),
        (b"[1, 2]", "", "wrong-type"),
        (b'"text"', "", "wrong-type"),
        (b"null", "", "wrong-type"),
        (b"not json", "", "json"),
        (b"{} " + b" " * 300_000 + b"x", "", "json"),
        (b'{"instruction": "cut', "", "json"),
        (b'{"instruction": "i", "response": "r",}', "", "json"),
        (b'{"instruction": "i", "response": "r"} {}', "", "json"),
        (b'{"instruction": "bare\ttab", "response": "r"}', "", "json"),
        (b'{"instruction": "i", "response": "one", "response": "two"}', "response", "json"),
        (b'{"instruction": "i", "response": "raw \x00"}', "response", "control-character"),
        (b'{"instruction": "i", "response": "caf\xe9"}', "response", "encoding"),
        (b'{"instruction": "i", "response": "\\ud83d"}', "response", "encoding"),
        (b'{"instruction": "i", "respo\xff": "r', "", "encoding"),
        (b'{"instruction": "i", "response": "r", "respo\xff": "r"}', "respo\ufffd", "encoding"),
        (b'{"instruction": "i", "response": "r", "x": ["caf\xe9"]}', "x", "encoding"),
        (b'{"instruction": "i", "response": "r", "x": {"y": "\\ud83d"}}', "x", "encoding"),
        (b'{"a": 1, "b": 2, "instruction": "i", "instruction": "j", "response": "r"}', "instruction", "json"),
        (
            b'{"response": "q", "response": "r", "instruction": "i", "context": null, "category": null}',
            "response",
            "json",
        ),
        (
            b'{"instruction": "a\\\\", "instruction": "b\\\\", "response": "c\\\\", "context": "\\\\"}',
            "instruction",
            "json",
        ),
        (b'{"instruction": "i", "response": "r", "x": ' + b"[" * 300 + b"]" * 300 + b"}", "", "json"),
        (b'{"instruction": "i", "response": "r", "x": ' + b'{"y":' * 1010 + b"1" + b"}" * 1011, "", "json"),
        (b'{"instruction": "i", "response": "r", "x": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", "", "json"),
    ],
)
def test_each_fault_has_its_code_line_and_field(make_file: MakeFile, row: Any, field: str, code: str) -> None:
    """The faulty row stands between sound ones, which stay unsuspected."""
    report = checked(make_file(GOOD, row, {**GOOD, "instruction": "Another?"}))
    assert report.records == 3
    found = [
        finding for finding in (*report.errors, *report.warnings) if (finding.field, finding.code) == (field, code)
    ]
    assert len(found) == 1
    assert all(finding.line == 2 for finding in (*report.errors, *report.warnings))
    assert report.passes() == (code in ("unknown-category", "unknown-field"))
    assert not report.passes(strict=True)


@pytest.mark.parametrize("row", [{**GOOD, "context": None}, {**GOOD, "category": None}, {**GOOD, "category": ""}])
def test_context_and_category_may_be_null_or_empty(make_file: MakeFile, row: dict[str, Any]) -> None:
    assert checked(make_file(row)).passes(strict=True)


def test_odd_but_allowed_characters(make_file: MakeFile) -> None:
    text = "\u2028 \ufeff \u200b \u200d 👩‍🔬 \u00a0 \ue000"
    assert checked(make_file({**GOOD, "response": text})).passes(strict=True)


def test_all_faults_of_one_row_come_at_once(make_file: MakeFile) -> None:
    row = {"instruction": "### End \x01", "response": "", "context": 3, "category": "odd", "extra": {}}
    assert sorted(codes(checked(make_file(row)))) == [
        (1, "category", "unknown-category"),
        (1, "context", "wrong-type"),
        (1, "extra", "unknown-field"),
        (1, "instruction", "control-character"),
        (1, "instruction", "prompt-key"),
        (1, "response", "empty-field"),
    ]


def test_bad_bytes_hide_no_other_fault_of_the_row(make_file: MakeFile) -> None:
    line = b'{"instruction": "caf\xe9", "response": "### End"}'
    assert codes(checked(make_file(line))) == [(1, "instruction", "encoding"), (1, "response", "prompt-key")]


def test_messages_say_where_and_how_to_mend(make_file: MakeFile) -> None:
    path = make_file(
        {"id": 1, "question": "Who?", "response": "Nobody."},
        b'{"a": 1, }',
        {"data": GOOD},
        {"instruction": "i", "output": None},
        {"instruction": "i", "x": "1", "y": "2"},
    )
    told = [str(finding) for finding in checked(path).errors]
    assert told[0].startswith(f"{path}:1: instruction: is missing.")
    assert "--map question=instruction" in told[0]
    assert "at column 8" in told[1]
    assert "--map data.instruction=instruction" in told[2]
    assert "4: output: is null" in told[4]
    assert "another column (x, y) holds it: --map COLUMN=response" in told[5]


def test_no_name_in_a_file_steers_the_terminal(make_file: MakeFile) -> None:
    report = checked(make_file({**GOOD, "\x1b[31mred\n": 1}))
    assert report.warnings[0].field == "\x1b[31mred\n"
    assert str(report.warnings[0]).isprintable()
    assert "\\u001b[31mred\\u000a: Roslin has no such field" in str(report.warnings[0])


def test_blank_lines_and_crlf_line_ends_are_no_faults(make_file: MakeFile) -> None:
    path = make_file(GOOD, b"", b"   ", {**GOOD, "instruction": "Another?"}, b'{"instruction": 1}', end=b"\r\n")
    report = checked(path)
    assert report.records == 3
    assert {line for line, _, _ in codes(report)} == {5}


def test_a_byte_order_mark_is_told_and_costs_no_record(make_file: MakeFile) -> None:
    path = make_file(b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), {**GOOD, "instruction": "Another?"})
    report = checked(path)
    assert codes(report) == [(1, "", "encoding")]
    assert report.records == 2
    assert report.rejected() == {}


@pytest.mark.parametrize("rest", [b"\n" + json.dumps(GOOD).encode(), b""])
def test_a_byte_order_mark_alone_on_its_line_is_no_record(tmp_path: Path, rest: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + rest)
    report = checked(path)
    assert codes(report) == [(1, "", "encoding")]
    assert report.records == bool(rest)


def test_utf16_is_one_fault_not_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "wide.jsonl"
    path.write_text("\n".join([json.dumps(GOOD)] * 5), encoding="utf-16")
    report = checked(path)
    assert [(f.line, f.code) for f in report.errors] == [(1, "encoding")]
    assert "UTF-16" in report.errors[0].message


def test_a_line_of_another_kind_of_file_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from roslin.records import json_rows

    monkeypatch.setattr(json_rows, "LONGEST_LINE", 5000)
    monkeypatch.setattr(json_rows, "BLOCK_BYTES", 1000)
    good = json.dumps(GOOD).encode()
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"\n".join([good, b"x" * 20_000, good, good + b" " * 4000, b"y" * 7000]))
    report = checked(path)
    assert [(line, code) for line, _, code in codes(report) if code == "json"] == [(2, "json"), (5, "json")]
    assert report.records == 5


def test_a_record_far_beyond_a_block_is_read(make_file: MakeFile) -> None:
    report = checked(make_file(GOOD, {**GOOD, "response": "long " * 900_000}, b"broken", GOOD))
    assert codes(report) == [(3, "", "json"), (4, "", "duplicate")]


def test_an_empty_file_is_an_error_beside_others(make_file: MakeFile) -> None:
    empty, other = make_file(name="empty.jsonl"), make_file({**GOOD, "response": ""}, name="other.jsonl")
    report = checked(empty, other)
    assert [(Path(f.file).name, f.line, f.code) for f in report.errors] == [
        ("empty.jsonl", 1, "json"),
        ("other.jsonl", 1, "empty-field"),
    ]
    assert report.records == 1


def test_duplicates_name_the_first_even_in_another_file(make_file: MakeFile) -> None:
    first = make_file({**GOOD, "response": "Other."}, GOOD, name="a.jsonl")
    second = make_file({**GOOD, "category": "general_qa"}, GOOD, {**GOOD, "context": "c"}, name="b.jsonl")
    report = checked(first, second)
    assert codes(report) == [(1, "", "duplicate"), (2, "", "duplicate")]
    assert all(f"{first}:2" in finding.message for finding in report.warnings)


def test_what_moves_between_fields_is_no_duplicate(make_file: MakeFile) -> None:
    path = make_file(
        {"instruction": "a\n\nb", "response": "r"},
        {"instruction": "a", "context": "b", "response": "r"},
        {"instruction": "a", "context": "", "response": "b\n\nr"},
        {"instruction": "ab", "context": "c", "response": "d"},
        {"instruction": "a", "context": "bc", "response": "d"},
        {"instruction": "a", "context": "b", "response": "cd"},
    )
    assert codes(checked(path)) == []


def test_columns_are_mapped_and_alpaca_is_recognised(make_file: MakeFile) -> None:
    mapped = make_file({"question": "Q?", "reply": {"text": "A."}}, name="mapped.jsonl")
    assert checked(mapped, mapping={"question": "instruction", "reply.text": "response"}).passes(strict=True)
    alpaca = make_file(
        {"instruction": "Add.", "input": "1 and 1", "output": "2"},
        {"instruction": "Greet.", "output": "Hello."},
        {"instruction": "Greet.", "input": "", "output": ""},
        name="alpaca.jsonl",
    )
    assert codes(checked(alpaca)) == [(3, "output", "empty-field")]


def test_a_mapped_column_that_no_record_has_is_an_error_before_all_others(make_file: MakeFile) -> None:
    """Even where the records would pass without it; a column that only some records have is no fault."""
    path = make_file(GOOD, {"id": 2, "question": "Q?", "response": ""})
    report = checked(path, mapping={"question": "instruction", "tag": "category", "meta.answer": "response"})
    assert codes(report)[:3] == [
        (1, "meta.answer", "missing-field"),
        (1, "tag", "missing-field"),
        (2, "response", "empty-field"),
    ]
    assert "the first record has: instruction, context, response, category." in report.errors[0].message
    assert report.rejected() == {1: [report.errors[2]]}
    broken = make_file(b"{", name="broken.jsonl")
    assert codes(checked(broken, mapping={"question": "instruction"})) == [(1, "", "json")]


def test_too_long_is_counted_with_the_tokenizer_given(make_file: MakeFile) -> None:
    def words(found: Any) -> list[int]:
        return [20 + len(f"{r.instruction} {r.context} {r.response}".split()) for r in found]

    rows = [{**GOOD, "response": "word " * n + "."} for n in (5, 175, 176, 177, 400)]
    report = checked(make_file(*rows), count_tokens=words, max_length=200)
    assert codes(report) == [(3, "", "too-long"), (4, "", "too-long"), (5, "", "too-long")]
    assert "200 tokens" in report.warnings[0].message


def test_records_that_surely_fit_are_not_counted(make_file: MakeFile) -> None:
    seen: list[Record] = []

    def count(found: Any) -> list[int]:
        seen.extend(found)
        return [20 + len(r.instruction.encode()) + len(r.response.encode()) for r in found]

    responses = ["x" * 1900, "x" * 3000, "é" * 200, "é" * 1000]
    checked(make_file(*({**GOOD, "response": r} for r in responses)), count_tokens=count, max_length=2048)
    assert [record.response for record in seen[1:]] == ["x" * 3000, "é" * 1000]


def test_held_out_questions_leak_whatever_their_case_and_answer(make_file: MakeFile) -> None:
    held_out = make_file({**GOOD, "instruction": "Name  a\nRIVER."}, name="held.jsonl")
    path = make_file({**GOOD, "instruction": "Name two rivers."}, {**GOOD, "response": "The Loire."})
    report = checked(path, held_out=[held_out])
    assert codes(report) == [(2, "instruction", "leak")]
    assert f"{held_out}:1" in report.errors[0].message
    assert report.records == 2


def test_an_unreadable_held_out_file_is_refused(make_file: MakeFile) -> None:
    held_out = make_file(b"{", GOOD, {"question": "Name a river.", "response": "r"}, name="held.jsonl")
    with pytest.raises(InputError) as raised:
        checked(make_file(GOOD), held_out=[held_out])
    told = str(raised.value)
    assert told.startswith("2 errors in the records:")
    assert f"{held_out}:1: Broken JSON" in told
    assert f"{held_out}:3: instruction: is missing" in told


def test_a_held_out_file_may_be_in_roslin_s_own_columns_beside_mapped_records(make_file: MakeFile) -> None:
    held_out = make_file(GOOD, name="held.jsonl")
    path = make_file({"question": "Name a river.", "response": "The Po."})
    report = checked(path, held_out=[held_out], mapping={"question": "instruction"})
    assert codes(report) == [(1, "question", "leak")]


@settings(deadline=None, max_examples=60)
@given(
    lines=st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=8), place=st.integers(0, 8)
)
def test_no_bytes_make_it_fall_or_hide_a_sound_record(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], place: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    good = json.dumps({"instruction": "sound", "response": ""}).encode()
    path.write_bytes(b"\n".join([b" ", *lines[:place], good, *lines[place:]]))
    report = check([path], CheckOptions(near=False))
    line = 2 + min(place, len(lines))
    assert (line, "response", "empty-field") in codes(report)
    assert report.records == 1 + sum(bool(line) and not line.isspace() for line in lines)


@settings(deadline=None, max_examples=60)
@given(
    row=st.dictionaries(
        st.sampled_from(["instruction", "context", "response", "category", "x"]),
        st.none() | st.text() | st.integers() | st.lists(st.text(), max_size=2),
    )
)
def test_the_quick_way_agrees_with_the_slow_one(row: dict[str, Any]) -> None:
    from roslin.records.columns import Columns
    from roslin.records.texts import TextRules

    rules = TextRules(Columns({}), ("### End",))
    quick, (slow, faults) = rules.sound(row), rules.examine(row)
    assert (quick is not None) == (not faults and all(isinstance(row.get(f, ""), str) for f in ("context", "category")))
    if quick:
        assert slow
        assert quick[:4] == slow[:4]
