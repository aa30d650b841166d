"""Finding paths of one machine in a text: nobody else has them, and they tell names of people and of machines."""

from __future__ import annotations

import re

PERSONAL = re.compile(
    r"(?<![\w/.:~-])/(?:home|Users|root|mnt|media|tmp|private|dbfs|local_disk0|Volumes|[Ww]orkspace|scratch|lustre|gpfs"
    r"|kaggle|content)"
    r"/[^\s\"'`()<>\[\]{},;|]+"
    r"|(?<![A-Za-z])[A-Za-z]:(?:\\{1,2}|/)(?:Users|Documents and Settings)(?:\\{1,2}|/)[^\s\"'`<>|]+"
    r"|(?<![A-Za-z])file:///[^\s\"'`()<>\[\]]+"
)
"""Where people's and machines' own files lie, anywhere in a text. `/path/to/model` and addresses are none."""
ABSOLUTE = re.compile(r"/[\w.@+~-]+(?:/[^\n/]+)+/?|[A-Za-z]:[\\/][^\n]+|\\\\[\w.-]+\\[^\n]+|~/[^\n]+|file://[^\n]+")
"""A value that is an absolute path as a whole: of a setting, any is one too many."""

BASE = "base_model_name_or_path"
ADVICE = {
    BASE: "give the base's name on the hub, or publish the merged model (`roslin export ADAPTER DIR --format merged`)",
    "_name_or_path": "remove the entry: nothing needs it",
    "tokenizer_file": "remove the entry: the file beside it is found without",
}
SETTING = "write it relative to this folder or as a name on the hub, or remove the entry"
TEXT = "write it as others have it"


def paths_in(text: str) -> list[tuple[int, str]]:
    """The paths of machines in a text, by line (from 1)."""
    return [(text.count("\n", 0, m.start()) + 1, m[0].rstrip(".:")) for m in PERSONAL.finditer(text)]


def path_in_value(value: str) -> str | None:
    """A path in a setting: the whole of it, or within a command."""
    found = PERSONAL.search(value)
    return value if ABSOLUTE.fullmatch(value) else found[0] if found else None


def advice_on(key: str) -> str:
    """What to do about a path under this key of a settings file."""
    return ADVICE.get(key.rsplit(".", 1)[-1], SETTING)
