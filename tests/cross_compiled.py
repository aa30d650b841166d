"""The C++ kernels compiled for other processors and systems than this one, by Zig's compiler, which is Clang.

`python` is one that has the package `ziglang`.
"""

import ast
import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
CPP = ROOT / "src" / "roslin" / "engine" / "cpu"
STAND_INS = Path(__file__).with_name("arm_stand_ins.cpp")
ALONE = ["-fno-exceptions", "-fno-rtti"]
"""For a library that has no C++ library beside it."""
PLACE = 0x10_0000_0000
"""Where the emulator's library lies in memory: Python has nothing there."""


def flags() -> list[str]:
    """Those of setup.py."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "UNIX":
            found: list[str] = ast.literal_eval(node.value)
            return found
    raise AssertionError("setup.py has no UNIX any more")


def objects(python: Path, folder: Path, target: str, sources: Sequence[Path], *more: str) -> list[Path]:
    """Object files for a target such as aarch64-macos. Fails with what the compiler says, be it a warning."""

    def one(source: Path) -> Path:
        made = folder / f"{source.stem}.o"
        _zig(python, folder, "c++", "-target", target, *flags(), *more, "-Werror", "-fPIC", "-c", source, "-o", made)
        return made

    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(one, sources))


def kernels_for_the_emulator(python: Path, folder: Path) -> Path:
    """The library for arm_emulator.py: without the pool of threads, which the emulator has none of."""
    target, sources = "aarch64-linux-musl", [path for path in sorted(CPP.glob("*.cpp")) if path.name != "pool.cpp"]
    found = objects(python, folder, target, sources, *ALONE)
    found += objects(python, folder, target, [STAND_INS], *ALONE, "-ffreestanding", f"-I{CPP}")
    made = folder / "kernels.elf"
    _zig(python, folder, "ld.lld", f"--image-base={PLACE}", "-e", "0", "-o", made, *found)
    return made


def _zig(python: Path, folder: Path, *arguments: str | Path) -> None:
    kept = {"ZIG_GLOBAL_CACHE_DIR": str(folder / "cache"), "ZIG_LOCAL_CACHE_DIR": str(folder / "cache")}
    command = [str(python), "-m", "ziglang", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | kept)
    assert done.returncode == 0, done.stderr[-3000:]
