"""roslin.json: written whole, read strictly, and without what lies where on somebody's machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from made_evidence import WEIGHTS, everything
from roslin.errors import InputError
from roslin.publish.evidence import Evidence, public_name, public_text, read_evidence, write_evidence


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_evidence(tmp_path, everything())
    assert read_evidence(tmp_path) == everything()
    assert [path.name for path in tmp_path.iterdir()] == ["roslin.json"]
    assert (tmp_path / "roslin.json").stat().st_mode & 0o444 == 0o444


def test_a_folder_without_it_has_no_evidence(tmp_path: Path) -> None:
    assert read_evidence(tmp_path) == Evidence()


def broken(values: Any, tmp_path: Path) -> Path:
    (tmp_path / "roslin.json").write_text(values if isinstance(values, str) else json.dumps(values))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("{", "no JSON"),
        ("[1]", "not what Roslin wrote"),
        ({"format": 2}, "of format 2.*pip install --upgrade"),
        ({"format": 1, "claims": {}}, "claims: Extra inputs"),
        ({"format": 1, "stated": {"owner": 3}}, "stated.owner: Input should be a valid string"),
        ({"format": 1, "tuning": {"name": "x"}}, "tuning.fingerprint: Field required.*… and"),
        ('{"format": 1, "stated": {"owner": "a"}, "limits": NaN}', "no JSON|not what Roslin wrote"),
    ],
)
def test_faults_are_told_with_their_place(change: Any, told: str, tmp_path: Path) -> None:
    folder = broken(change, tmp_path)
    with pytest.raises(InputError, match=rf"(?s)roslin\.json: .*({told})"):
        read_evidence(folder)


def test_measurements_of_other_weights_are_left_out() -> None:
    assert everything().of_weights(WEIGHTS) == everything()
    none = everything().of_weights("00")
    assert (none.benchmarks, none.limits, none.responses) == ([], None, None)
    assert none.tuning == everything().tuning


def test_nothing_measured_holds_for_weights_without_a_hash() -> None:
    limits = everything().limits
    assert limits
    unknown = Evidence(limits=limits.model_copy(update={"fingerprint": None}))
    assert unknown.of_weights(None).limits is None


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/me/a.jsonl", "a.jsonl"),
        ("~/run/model", "model"),
        ("../x/model", "model"),
        ("data/a.jsonl", "data/a.jsonl"),
        ("owner/name", "owner/name"),
        ("base", "base"),
    ],
)
def test_paths_from_elsewhere_are_cut_to_names(given: str, shown: str) -> None:
    assert public_name(given) == shown


def test_absolute_paths_in_texts_are_cut_to_names() -> None:
    given = "cannot read /home/me/run/model.bin: see https://a.b/c/d, half/way and 1/2"
    assert public_text(given) == "cannot read model.bin: see https://a.b/c/d, half/way and 1/2"
