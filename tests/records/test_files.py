"""The formats, places and compressions that records are read from."""

import csv
import gzip
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record_files import GOOD, MakeFile, checked, codes
from roslin.errors import InputError, UsageError
from roslin.records import find_sources, load
from roslin.records.json_rows import array_rows
from roslin.records.table_rows import hub_rows

ROWS = [{**GOOD, "instruction": f"Name river {n}.", "context": 'a,\n"b"' if n == 1 else ""} for n in range(3)]
BAD = {"instruction": "Faulty.", "context": "", "response": "", "category": "open_qa"}


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",", end: str = "\n") -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(GOOD), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), stream, row_group_size=2)
    return stream.getvalue()


def as_arrow(rows: list[dict[str, Any]], new: Any = pa.ipc.new_stream) -> bytes:
    stream = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with new(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pa.compress(content, codec="zstd", asbytes=True))


FORMATS = {
    "r.jsonl": (as_jsonl, 4),
    "r.ndjson": (as_jsonl, 4),
    "lines.json": (as_jsonl, 4),
    "array.json": (lambda rows: json.dumps(rows).encode(), 1),
    "pretty.json": (lambda rows: json.dumps(rows, indent=2).encode(), 20),
    "r.csv": (as_csv, 6),
    "windows.csv": (lambda rows: b"\xef\xbb\xbf" + as_csv(rows, end="\r\n"), 6),
    "r.tsv": (lambda rows: as_csv(rows, "\t"), 6),
    "r.parquet": (as_parquet, 4),
    "stream.arrow": (as_arrow, 4),
    "file.arrow": (lambda rows: as_arrow(rows, pa.ipc.new_file), 4),
    "r.jsonl.gz": (lambda rows: gzip.compress(as_jsonl(rows)), 4),
    "two.jsonl.gz": (lambda rows: gzip.compress(as_jsonl(rows[:2])) + gzip.compress(as_jsonl(rows[2:])), 4),
    "r.jsonl.zst": (lambda rows: zstd(as_jsonl(rows)), 4),
    "r.csv.gz": (lambda rows: gzip.compress(as_csv(rows)), 6),
    "r.json.zst": (lambda rows: zstd(json.dumps(rows).encode()), 1),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_records_and_places(tmp_path: Path, name: str) -> None:
    """The line of the fourth row is where a person finds it: its first line, or its row in Parquet and Arrow."""
    write, line = FORMATS[name]
    path = tmp_path / name
    path.write_bytes(write(ROWS))
    assert [record.model_dump() for record in load([path])] == ROWS
    path.write_bytes(write([*ROWS, BAD, {**BAD, "response": "r"}]))
    assert codes(checked(path)) == [(line, "response", "empty-field")]


def test_one_broken_element_of_an_array_hides_no_other() -> None:
    good = json.dumps(GOOD)
    cases = [
        (f'[{good},\n {{"instruction": "cut\n, {good}]', [1, 3]),
        (f"[{good},\n {{'single': 1}},\n {good}]", [1, 3]),
        (f'[{good},\n {{"a": 1,}}, {good},\n {good}]', [1, 2, 3]),
        (f'[\n{good},\n{{"a": "]", "b": [1, {{}}], "c": "\\"}}"}},\n{good}\n]', [2, 3, 4]),
        (f"[{good}, nonsense, {good}, 5]", [1, 1]),
        (f"[{good}, {good}", [1, 1]),
        (f"[{good}]\n[{good},\n{good}]", [1, 2, 3]),
        (f"[{good}],\n{good}]", [1, 2]),
        (f"[{good}]\n{good}\n", [1, 2]),
        (f"[{good}]]", [1]),
        (f"[{good}}},\n{good}, 5}}, {good}]", [1, 2, 2]),
    ]
    for text, lines in cases:
        rows = list(array_rows(text.encode()))
        assert [row.line for row in rows if isinstance(row.value, dict)] == lines, text
        sound = text.startswith("[\n")
        assert any(row.faults for row in rows) != sound


def test_one_object_over_many_lines_is_one_record_or_says_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(GOOD, indent=2))
    assert [record.model_dump() for record in load([path])] == [GOOD]
    path.write_text(json.dumps({"version": 1, "data": [GOOD]}, indent=2))
    report = checked(path)
    assert codes(report) == [(1, "", "wrong-type")]
    assert "'data'" in report.errors[0].message
    path.write_text(f"{{cut\n{json.dumps(GOOD)}\n")
    assert codes(checked(path)) == [(1, "", "json")]
    path.write_text(json.dumps({**GOOD, "tags": ["a"], "turns": [{}]}, indent=2))
    assert codes(checked(path)) == [(1, "tags", "unknown-field"), (1, "turns", "unknown-field")]
    path.write_text('{\n"instruction": "i",\n"response": "r",\n"response": "s"}')
    assert codes(checked(path)) == [(1, "response", "json")]


@pytest.mark.parametrize("value", ["5", "null", '"text"', "true"])
def test_a_json_file_that_is_one_other_value_is_told(tmp_path: Path, value: str) -> None:
    path = tmp_path / "one.json"
    path.write_text(f"{value}\n")
    assert codes(checked(path)) == [(1, "", "wrong-type")]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("value", [GOOD, [GOOD]])
def test_a_byte_order_mark_is_told_in_every_layout_of_json(tmp_path: Path, value: Any, indent: int | None) -> None:
    path = tmp_path / "marked.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(value, indent=indent).encode())
    report = checked(path)
    assert codes(report) == [(1, "", "encoding")]
    assert (report.records, report.rejected()) == (1, {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(values=st.lists(json_values, max_size=6), indent=st.sampled_from([None, 0, 2]))
def test_arrays_are_cut_where_json_says(values: list[Any], indent: int | None) -> None:
    rows = list(array_rows(json.dumps(values, indent=indent).encode()))
    assert [row.value for row in rows if isinstance(row.value, dict)] == [v for v in values if isinstance(v, dict)]
    assert len(rows) == len(values)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.parquet", b"no parquet"),
        ("r.arrow", b"no arrow file"),
        ("r.jsonl.gz", b"no gzip"),
        ("r.jsonl.gz", gzip.compress(as_jsonl(ROWS * 999))[:-300]),
        ("r.jsonl.zst", b"no zstd"),
    ],
)
def test_broken_files_are_told_beside_others(tmp_path: Path, make_file: MakeFile, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    report = checked(path, make_file(BAD, name="other.jsonl"))
    assert [(f.file, f.code) for f in report.errors] == [
        (str(path), "encoding"),
        (str(tmp_path / "other.jsonl"), "empty-field"),
    ]
    assert "cannot be read" in report.errors[0].message


@pytest.mark.parametrize("name", ["r.jsonl.gz", "r.jsonl.zst", "r.csv.gz", "r.json.gz"])
def test_of_a_file_that_was_cut_off_nearly_all_is_read_and_the_place_is_told(tmp_path: Path, name: str) -> None:
    rows = [
        {**GOOD, "instruction": f"Question {n * 7919 % 10_007}?", "response": "" if n == 0 else "r"}
        for n in range(5000)
    ]
    write = {"jsonl": as_jsonl, "csv": as_csv, "json": lambda rows: json.dumps(rows, indent=0).encode()}[
        name.split(".")[1]
    ]
    content = gzip.compress(write(rows)) if name.endswith(".gz") else zstd(write(rows))
    path = tmp_path / name
    path.write_bytes(content[: len(content) * 9 // 10])
    report = checked(path)
    assert report.records > 2500
    assert "empty-field" in report.counts()
    (cut,) = (finding for finding in report.errors if "cannot be read behind this record" in finding.message)
    assert cut.code == "encoding"
    assert cut.line > 2500
    assert report.counts()["json"] <= 2  # the element that was cut, and the array that was


def test_folders_globs_and_files_each_once(make_file: MakeFile, tmp_path: Path) -> None:
    for name in ("d/b.jsonl", "d/a.jsonl", "d/deep/c.jsonl", "d/.hidden/x.jsonl", "d/dataset_info.json"):
        make_file(GOOD, name=name)
    (tmp_path / "d" / "README.md").write_text("no records")
    names = [source.name for source in find_sources([tmp_path / "d"])]
    assert names == [str(tmp_path / "d" / name) for name in ("a.jsonl", "b.jsonl", "deep/c.jsonl")]
    assert [s.name for s in find_sources([f"{tmp_path}/d/**/*.jsonl", tmp_path / "d" / "b.jsonl"])] == names
    assert [s.name for s in find_sources([f"{tmp_path}/d/[ab].jsonl"])] == names[:2]
    (tmp_path / "d" / "again").symlink_to(tmp_path / "d" / "a.jsonl")
    twice = find_sources([tmp_path / "d" / ".." / "d" / "a.jsonl", tmp_path / "d" / "a.jsonl"])
    assert len(twice) == 1


def test_a_folder_that_may_not_be_looked_into_is_told(
    tmp_path: Path, make_file: MakeFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may look into everything, as root may, is refused here by hand."""
    make_file(GOOD, name="d/a.jsonl")
    make_file(GOOD, name="d/closed/b.jsonl")
    look = os.scandir

    def refusing(path: str) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match=r"d/closed: cannot be looked up \(Permission denied\)"):
        find_sources([tmp_path / "d"])


def test_paths_with_nothing_behind_them_are_told_together(tmp_path: Path, make_file: MakeFile) -> None:
    (tmp_path / "empty").mkdir()
    make_file(name="notes.txt")
    wrong = [tmp_path / "missing.jsonl", tmp_path / "empty", f"{tmp_path}/*.csv", tmp_path / "notes.txt"]
    wrong.append(tmp_path / f"{'long' * 99}.jsonl")
    with pytest.raises(InputError, match="A path is empty"):
        find_sources([""])
    with pytest.raises(InputError) as raised:
        find_sources([make_file(GOOD), *wrong])
    told = str(raised.value).split("\n")
    assert len(told) == 5
    for line, path in zip(told, wrong, strict=True):
        assert line.startswith(f"{path}: ")


def test_a_dataset_laid_out_like_the_hub_s_is_read_through_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_file: MakeFile
) -> None:
    """Offline: `datasets` takes a folder of this name as it would take the hub's repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    repository = "databricks/databricks-dolly-15k"
    make_file(*ROWS, BAD, name=f"{repository}/databricks-dolly-15k.jsonl")
    (tmp_path / repository / "README.md").write_text("---\nlicense: cc-by-sa-3.0\n---\n# databricks-dolly-15k\n")
    rows = list(hub_rows(repository))
    assert [row.value for row in rows] == [*ROWS, BAD]
    assert [row.line for row in rows] == [1, 2, 3, 4]
    assert [row.value for row in hub_rows(f"{repository}:train")] == [*ROWS, BAD]
    with pytest.raises(UsageError, match="name one of its splits"):
        list(hub_rows(f"{repository}:test"))
    # As a path, the same folder is read without `datasets`.
    assert codes(checked(repository)) == [(4, "response", "empty-field")]


def test_hub_names_without_datasets_or_without_such_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'roslin\[hub\]'"):
        checked("nobody/nothing")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no such file or folder here, and as a dataset"):
        checked("nobody/nothing")
