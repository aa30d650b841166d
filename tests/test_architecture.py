"""The floors of the house: a room imports only from floors below its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import roslin

PACKAGE = Path(roslin.__file__).parent

FLOORS = {
    "errors": -1,
    "prompt": 0,
    "records": 0,
    "statistics": 0,
    "gguf_file": 0,
    "tokens": 1,
    "model": 1,
    "memory": 2,
    "tune": 3,
    "engine": 3,
    "answer": 4,
    "evaluate": 5,
    "serve": 5,
    "batch": 5,
    "integrations": 5,
    "publish": 6,
    "cluster": 6,
    "workflows": 7,
    "cli": 8,
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in ("__init__", "__main__")]


def home_of(name: str) -> str:
    """The module that `from roslin import name` comes from."""
    return roslin._HOMES.get(name, f"roslin.{name}")


def imported_rooms(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [home_of(a.name) for a in node.names] if node.module == "roslin" else [node.module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "roslin" and len(parts) > 1 and parts[1] in FLOORS:
                yield parts[1], node.lineno


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in sources()} <= FLOORS.keys()


def test_no_import_runs_up_or_sideways() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {room}"
        for path in sources()
        for room, line in imported_rooms(path)
        if room != room_of(path) and FLOORS[room] >= FLOORS[room_of(path)]
    ]
    assert wrong == []


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from roslin.cli import main\nfrom roslin import tune\nimport roslin.engine\nfrom roslin import Roslin\n"
    )
    assert [room for room, _ in imported_rooms(wrong)] == ["cli", "tune", "engine", "answer"]
    assert FLOORS["answer"] == 4


def test_low_rooms_do_not_know_torch() -> None:
    for room in ("prompt.py", "errors.py", "gguf_file.py"):
        assert "import torch" not in (PACKAGE / room).read_text(encoding="utf-8")
    for room in ("records", "statistics", "tokens"):
        for path in (PACKAGE / room).rglob("*.py"):
            assert "import torch" not in path.read_text(encoding="utf-8")
