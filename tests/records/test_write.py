"""What is written is whole, or nothing is; what passes a check is kept and the rest is kept with its reasons."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record_files import GOOD, MakeFile, checked
from roslin.errors import InputError, MachineError, UsageError
from roslin.records import Record, load, write_jsonl, write_parts, write_passing
from roslin.records.write import JsonLines

RECORD = Record(**GOOD)


@settings(deadline=None)
@given(
    found=st.lists(
        st.builds(
            Record,
            instruction=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).filter(str.strip),
            context=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])),
            response=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1).filter(str.strip),
            category=st.text(max_size=4),
        ).filter(lambda r: r.category.isprintable()),
        min_size=1,
        max_size=5,
    ),
    suffix=st.sampled_from(["jsonl", "jsonl.gz", "jsonl.zst"]),
)
def test_what_is_written_is_loaded_again(
    tmp_path_factory: pytest.TempPathFactory, found: list[Record], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("round") / f"r.{suffix}"
    assert write_jsonl(found, path) == len(found)
    assert load([path]) == found


def test_a_write_that_fails_leaves_what_was_there_and_no_scraps(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    write_jsonl([RECORD], path)
    before = path.read_bytes()

    def broken() -> Iterator[Record]:
        yield from [RECORD] * 5000
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_jsonl(broken(), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.jsonl"]  # noqa: PTH208


def test_a_full_disk_is_a_clear_error() -> None:
    with pytest.raises(MachineError, match="cannot be written"):
        write_jsonl([RECORD], Path("/proc/nowhere/r.jsonl"))


def test_parts_are_written_all_or_none(tmp_path: Path) -> None:
    """A new train file beside an old held-out one would leak."""
    train = tmp_path / "train.jsonl"
    write_jsonl([RECORD], train)
    before = train.read_bytes()
    with pytest.raises(MachineError, match=r"/proc/nowhere/h\.jsonl cannot be written"):
        write_parts({train: [RECORD] * 2, Path("/proc/nowhere/h.jsonl"): [RECORD]})
    assert train.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]
    write_parts({train: [RECORD] * 2, tmp_path / "h.jsonl": [RECORD]})
    assert (len(load([train])), len(load([tmp_path / "h.jsonl"]))) == (2, 1)


def test_the_file_that_could_not_be_written_is_named() -> None:
    """And not the one beside it that was opened last."""
    write = JsonLines(open("/dev/full", "wb", buffering=0), Path("out.jsonl"))  # noqa: PTH123, SIM115
    with pytest.raises(MachineError, match=r"out\.jsonl cannot be written \(No space left"):
        write({})


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        write_jsonl([RECORD], tmp_path / "r.parquet")


def test_a_new_file_has_the_rights_of_new_files(tmp_path: Path) -> None:
    write_jsonl([RECORD], tmp_path / "r.jsonl")
    (tmp_path / "plain").touch()
    assert (tmp_path / "r.jsonl").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_fix_keeps_what_passes_and_rejects_with_reasons(make_file: MakeFile, tmp_path: Path) -> None:
    alpaca = {"instruction": "Add.", "input": "1, 1", "output": "2", "id": 9}
    first = make_file(
        b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), {**GOOD, "response": "### End"}, b"{cut", alpaca, name="a.jsonl"
    )
    second = tmp_path / "b.json"
    second.write_text(json.dumps([{**GOOD, "category": "odd"}, {**GOOD, "context": 3}], indent=1))
    paths, out = [first, second], tmp_path / "clean.jsonl"
    written = write_passing(paths, {}, checked(*paths), out)
    assert (written.passing, written.rejected) == (3, 3)
    assert [record.model_dump() for record in load([out])] == [
        GOOD,
        {"instruction": "Add.", "context": "1, 1", "response": "2", "category": ""},
        {**GOOD, "category": "odd"},
    ]
    rejects = [json.loads(line) for line in (tmp_path / "clean.rejects.jsonl").read_text().splitlines()]
    assert [(r["file"], r["line"], [x["code"] for x in r["reasons"]]) for r in rejects] == [
        (str(first), 2, ["prompt-key"]),
        (str(first), 3, ["json"]),
        (str(second), 8, ["wrong-type"]),
    ]
    assert rejects[0]["record"] == {**GOOD, "response": "### End"}
    assert rejects[1]["text"] == "{cut"
    assert checked(out).passes()


def test_fix_under_strict_rejects_warnings_too(make_file: MakeFile, tmp_path: Path) -> None:
    path = make_file(GOOD, {**GOOD, "category": "odd"}, GOOD)
    written = write_passing([path], {}, checked(path), tmp_path / "c.jsonl.gz", strict=True)
    assert written.rejects_path == tmp_path / "c.rejects.jsonl"
    assert (written.passing, written.rejected) == (1, 2)
    assert gzip.decompress((tmp_path / "c.jsonl.gz").read_bytes()).count(b"\n") == 1


def test_rejects_of_tables_keep_values_that_json_lacks(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pa.parquet.write_table(pa.table({"instruction": ["a"], "response": [b"\xff"]}), path)
    written = write_passing([path], {}, checked(path), tmp_path / "c.jsonl")
    assert written.rejected == 1


def test_rejects_that_json_cannot_say_again_are_kept_as_they_stand(make_file: MakeFile, tmp_path: Path) -> None:
    lines = [
        b'{"instruction": "i", "response": "", "respo\\ud83d": {"x": ["\\ud83d"]}}',
        b'{"instruction": "i", "response": "", "x": ' + b"[" * 400 + b"]" * 400 + b"}",
    ]
    path, out = make_file(*lines), tmp_path / "c.jsonl"
    written = write_passing([path], {}, checked(path), out)
    assert written.rejected == 2
    assert [json.loads(line)["text"].encode() for line in written.rejects_path.open()] == lines


def test_inputs_are_never_overwritten(make_file: MakeFile, tmp_path: Path) -> None:
    path = make_file(GOOD, name="r.rejects.jsonl")
    report = checked(path)
    for out in (path, tmp_path / "r.jsonl"):
        with pytest.raises(UsageError, match="is also an input"):
            write_passing([path], {}, report, out)


def test_load_takes_sound_records_with_warnings(make_file: MakeFile) -> None:
    assert load([make_file(GOOD, GOOD)]) == [RECORD, RECORD]
    mapped = make_file({"q": "Q?", "a": "A.", "category": "own", "id": 1}, name="mapped.jsonl")
    assert load([mapped], mapping={"q": "instruction", "a": "response"}) == [
        Record(instruction="Q?", response="A.", category="own")
    ]


def test_load_maps_columns_that_are_there_and_leaves_its_own_files_alone(make_file: MakeFile) -> None:
    mapping = {"q": "instruction", "tag": "category"}
    assert load([make_file(GOOD, name="held.jsonl")], mapping=mapping) == [RECORD]
    with pytest.raises(
        InputError, match=r"1: tag: was named as the category \(--map\), and no record has it.*: q, respo"
    ):
        load([make_file({"q": "Q?", "response": "A."}, name="typo.jsonl")], mapping=mapping)


def test_load_lists_every_fault_up_to_a_cap(make_file: MakeFile) -> None:
    path = make_file(GOOD, *[{**GOOD, "response": "### End"}] * 3, b"{")
    with pytest.raises(InputError) as raised:
        load([path], keys=["### End"])
    told = str(raised.value)
    assert told.startswith("4 errors in the records:")
    assert all(f"{path}:{line}: " in told for line in (2, 3, 4, 5))
    assert f"roslin records check {path}" in told
    with pytest.raises(InputError, match=r"… and 980 more\."):
        load([make_file(*[b"{"] * 1000, name="many.jsonl")])


def test_load_of_nothing_is_an_error(make_file: MakeFile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no records"):
        load([make_file()])
    with pytest.raises(InputError, match="no such file"):
        load([tmp_path / "missing.jsonl"])
