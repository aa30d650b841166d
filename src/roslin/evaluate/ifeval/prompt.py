"""Prompts with instructions that a program can check, from Roslin's own set, a file, or the hub."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from roslin.errors import InputError, UsageError
from roslin.evaluate.ifeval.instruction import Instruction

OWN = Path(str(resources.files("roslin") / "evaluate" / "ifeval" / "prompts.jsonl"))
"""Prompts that come with Roslin: every kind that is checked, alone and in pairs. They are not IFEval's."""
ON_THE_HUB = "google/IFEval"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class CheckedPrompt:
    """A prompt and the instructions in it."""

    key: int
    prompt: str
    instructions: tuple[Instruction, ...]

    @property
    def is_checked(self) -> bool:
        """Whether all of its instructions can be checked here."""
        return all(instruction.is_checked for instruction in self.instructions)


def load_prompts(source: str | Path | None = None) -> list[CheckedPrompt]:
    """Prompts in IFEval's layout (key, prompt, instruction_id_list, kwargs): those of Roslin when `source` is None.

    `source` is a file of JSON lines, or a dataset of the hub such as `google/IFEval` (541 prompts), for which the
    package `datasets` and the network are needed. Raises InputError listing all that is wrong with its rows, UsageError
    when `datasets` is missing.
    """
    path = Path(OWN if source is None else source)
    if path.is_file():
        return _parse(_json_rows(path), str(path))
    if not _HUB_NAME.fullmatch(str(source)) or path.suffix in (".jsonl", ".json"):
        raise InputError(
            f"{str(source)!r}: no such file, and no name of a dataset of the hub (owner/name). Give a file of JSON "
            f"lines, or {ON_THE_HUB}."
        )
    return _parse(_hub_rows(str(source)), str(source))


def _json_rows(path: Path) -> Iterable[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 at byte {error.start}. Save it as UTF-8.") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{path}:{number}", _value(line)


def _value(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # the second from brackets within brackets without end
        return ValueError(str(error))


def _hub_rows(name: str) -> Iterable[tuple[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise UsageError(
            f"{name}: no such file; and to read it from the hub, the package `datasets` is needed: "
            "pip install 'roslin[hub]'"
        ) from None
    try:
        rows = datasets.load_dataset(name, split="train")
    except Exception as error:  # of many kinds: from the hub's client, from the network, from the loader
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{name}: no such file here, and as a dataset of the hub it cannot be read: {reason}"
        ) from None
    return [(f"{name}, row {number}", row) for number, row in enumerate(rows, 1)]


def _parse(rows: Iterable[tuple[str, Any]], source: str) -> list[CheckedPrompt]:
    prompts: list[CheckedPrompt] = []
    places: dict[int, str] = {}
    faults: list[str] = []
    for place, row in rows:
        found = _faults(row)
        if not found:
            prompt = _prompt(row)
            found = [fault for instruction in prompt.instructions for fault in instruction.faults()]
            if prompt.key in places:
                found.append(f"its key, {prompt.key}, is that of {places[prompt.key]} too")
            places[prompt.key] = place
            prompts.append(prompt)
        faults += [f"{place}: {fault}." for fault in found]
    if faults:
        raise InputError("\n".join([f"{source} is not a set of prompts as IFEval lays them out:", *faults]))
    if not prompts:
        raise InputError(f"{source}: there are no prompts in it.")
    return prompts


def _faults(row: Any) -> list[str]:
    """What is wrong with the layout of a row."""
    if isinstance(row, ValueError):
        return [f"not JSON ({row})"]
    if not isinstance(row, Mapping):
        return ["not a JSON object"]
    kinds: Any = row.get("instruction_id_list")
    arguments: Any = row.get("kwargs")
    found = []
    if not isinstance(row.get("key"), int):
        found.append("key must be a whole number")
    if not isinstance(row.get("prompt"), str) or not row["prompt"].strip():
        found.append("prompt must be a text")
    if not _all_of(kinds, str):
        found.append("instruction_id_list must be a list of names")
    if not _all_of(arguments, Mapping):
        found.append("kwargs must be a list of objects")
    elif isinstance(kinds, list) and len(kinds) != len(arguments):
        found.append(f"instruction_id_list names {len(kinds)} instructions, and kwargs has {len(arguments)} objects")
    return found


def _all_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, kind) for each in value)


def _prompt(row: Mapping[str, Any]) -> CheckedPrompt:
    pairs = zip(row["instruction_id_list"], row["kwargs"], strict=True)
    # The hub's table has every argument in every row, null where a kind has no such argument.
    given = [Instruction(kind, {k: v for k, v in args.items() if v is not None}) for kind, args in pairs]
    return CheckedPrompt(row["key"], row["prompt"], tuple(given))
