"""Tables: CSV row by row and line by line, Parquet and Arrow with what Python cannot take."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record_files import checked, codes
from roslin.records.table_rows import csv_rows


@settings(deadline=None)
@given(
    rows=st.lists(
        st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=2, max_size=2), max_size=6
    )
)
def test_csv_is_read_as_it_is_written(rows: list[list[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows([["a", "b"], *rows])
    found = list(csv_rows(io.BytesIO(text.getvalue().encode())))
    assert [row.value for row in found] == [{"a": a, "b": b} for a, b in rows]
    assert not any(row.faults for row in found)
    starts = [2 + sum(a.count("\n") + b.count("\n") + 1 for a, b in rows[:n]) for n in range(len(rows))]
    assert [row.line for row in found] == starts


def test_faulty_csv_rows_hide_no_other(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(
        b'instruction,response,category\n"one",r1,open_qa\n"never closed,r2,open_qa\nthree,r3,open_qa\n\n'
        b'four,r4\nfive,r5,open_qa,more\nsix,caf\xe9,open_qa\n"sev"en,r7,open_qa\n"two\nlines",,open_qa\n'
    )
    report = checked(path)
    assert codes(report) == [
        (3, "", "json"),
        (6, "", "json"),
        (7, "", "json"),
        (8, "response", "encoding"),
        (9, "", "json"),
        (10, "response", "empty-field"),
    ]
    assert report.records == 8


def test_csv_without_the_columns_says_which_it_has(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("question,question,response\na,b,c\n")
    report = checked(path)
    assert [(line, field, code) for line, field, code in codes(report) if code != "unknown-field"] == [
        (1, "question", "json"),
        (2, "instruction", "missing-field"),
    ]
    assert "--map question=instruction" in report.errors[1].message
    path.write_text("question,response\na,c\n")
    assert checked(path, mapping={"question": "instruction"}).passes(strict=True)


def test_a_csv_header_may_follow_blank_lines_and_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b"\n\r\ninstruction,response,ca\xe9\na,,x\n")
    report = checked(path)
    assert codes(report) == [
        (3, "ca\ufffd", "encoding"),
        (4, "response", "empty-field"),
        (4, "ca\ufffd", "unknown-field"),
    ]


@pytest.mark.parametrize(("name", "mark"), [("r.csv", ";"), ("r.csv", "\t"), ("r.tsv", ",")])
def test_another_delimiter_is_one_fault_not_one_a_row(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    path.write_text(f"instruction{mark}response\n" + f"a{mark}b\n" * 5)
    report = checked(path)
    assert codes(report) == [(1, f"instruction{mark}response", "json")]
    assert repr(mark) in report.errors[0].message


def test_a_csv_line_of_another_kind_of_file_is_not_read_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from roslin.records import json_rows, table_rows

    for module in (json_rows, table_rows):
        monkeypatch.setattr(module, "LONGEST_LINE", 5000)
    monkeypatch.setattr(json_rows, "BLOCK_BYTES", 1000)
    path = tmp_path / "r.csv"
    path.write_bytes(b"instruction,response\na," + b"x" * 20_000 + b"\nb,\n")
    assert codes(checked(path)) == [(2, "", "json"), (3, "response", "empty-field")]


@pytest.mark.parametrize("name", ["r.parquet", "r.arrow"])
def test_columns_of_one_name_in_tables_are_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    table = pa.Table.from_arrays(
        [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])], ["instruction", *["response"] * 2]
    )
    if name == "r.parquet":
        pa.parquet.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    assert codes(checked(path)) == [(1, "response", "json")]


BAD_TEXTS = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\4\0\0\0\6\0\0\0"), pa.py_buffer(b"caf\xe9ok")]
)


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (BAD_TEXTS, "encoding"),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), BAD_TEXTS), "encoding"),
        (pa.StructArray.from_arrays([BAD_TEXTS], ["y"]), "encoding"),
        (pa.ListArray.from_arrays(pa.array([0, 1, 2]), BAD_TEXTS), "encoding"),
        (pa.array([2**50, 2], pa.timestamp("ms")), "unknown-field"),
        (pa.array([2**30, 2], pa.date32()), "unknown-field"),
    ],
)
def test_values_of_tables_that_python_cannot_take_hide_no_record(tmp_path: Path, column: Any, code: str) -> None:
    path = tmp_path / "r.arrow"
    table = pa.table({"instruction": ["a", "b"], "response": ["r", ""], "x": column})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    report = checked(path)
    assert (1, "x", code) in codes(report)
    assert (2, "response", "empty-field") in codes(report)
    assert (2, "x", "encoding") not in codes(report)
    assert report.records == 2


def test_an_arrow_file_with_wrong_offsets_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "r.arrow"
    table = pa.table({"instruction": ["first", "second"], "response": ["r", "s"]})
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    offsets = b"\0\0\0\0\5\0\0\0\x0b\0\0\0"
    content = path.read_bytes()
    assert offsets in content
    path.write_bytes(content.replace(offsets, b"\0\0\0\0\xff\0\0\0\x0b\0\0\0"))
    report = checked(path)
    assert codes(report) == [(1, "", "encoding")]
    assert "cannot be read" in report.errors[0].message


def test_tables_with_odd_values(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    columns = {"instruction": ["a", None, "c"], "response": pa.array([1, 2, 3]), "context": [None, "", "x"]}
    pa.parquet.write_table(pa.table(columns), path)
    assert codes(checked(path)) == [
        (1, "response", "wrong-type"),
        (2, "instruction", "missing-field"),
        (2, "response", "wrong-type"),
        (3, "response", "wrong-type"),
    ]


def test_texts_in_tables_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "r.arrow"
    table = pa.table({"instruction": ["a", "b"], "response": BAD_TEXTS})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert codes(checked(path)) == [(1, "response", "encoding")]
