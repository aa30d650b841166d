"""Whether a model card can be published: its metadata, its sections, and what it links to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from roslin.model.find import HUB_NAME
from roslin.model.local import has_weights

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

CARD = "README.md"
NO_CARD = f"{CARD}: missing: a model is published with a card; "
MAKE_ONE = "make one by `roslin card FOLDER`"
WRITE_ONE = "write one, or copy that of the model it was made from, with what is another here"
"""Of a format for which `roslin card` makes none."""
SECTIONS = {
    "how it is used": re.compile(r"\bus(?:e|es|age|ing)\b|get(?:ting)? started|quick ?start", re.IGNORECASE),
    "what its limits are": re.compile(r"\blimit(?:s|ations?)?\b|\bbias(?:es)?\b|\brisks?\b", re.IGNORECASE),
}
"""What each card must say, and the headings under which cards say it."""
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1[`~]*\s*?$|`[^`\n]+`|<!--.*?-->", re.DOTALL | re.MULTILINE)
LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)\n]*\)|(?:src|href)\s*=\s*[\"']([^\"']+)[\"']|^ {0,3}\[[^\]]+\]:\s*(\S+)", re.M
)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//|#|\{\{", re.IGNORECASE)


def card_faults(path: Path, names: Collection[str], *, adapter: bool) -> list[str]:
    """What is wrong with the card at `path`, beside the files of these names that are sent with it."""
    if not path.is_file():
        return [NO_CARD + (MAKE_ONE if has_weights(path.parent) else WRITE_ONE)]
    try:
        data, text = _read(path)
    except UnicodeDecodeError as error:
        return [f"{CARD}: not UTF-8 at byte {error.start}: save it as UTF-8"]
    except Exception as error:  # of YAML, and of the hub's own classes for what YAML says, whatever these raise
        return [
            f"{CARD}: its metadata, the YAML between the `---` at its top, is wrong: {' '.join(str(error).split())}"
        ]
    return [*_metadata_faults(data, adapter), *_section_faults(text), *_link_faults(text, names)]


def names_no_base(path: Path) -> bool:
    """Whether a card that was found right says nothing of a base."""
    return not _read(path)[0].get("base_model")


def licence_of(path: Path) -> str:
    """The licence that a card states, as the hub spells it."""
    data, _ = _read(path)
    stated = data.get("license_name") if data.get("license") == "other" else data.get("license")
    return ", ".join(stated) if isinstance(stated, list) else str(stated)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """A card's metadata and its Markdown."""
    from huggingface_hub import ModelCard

    card: Any = ModelCard(path.read_text(encoding="utf-8-sig"), ignore_metadata_errors=False)
    return card.data.to_dict(), card.text


def _metadata_faults(data: dict[str, Any], adapter: bool) -> list[str]:
    faults = []
    licence = data.get("license")
    if not licence:
        faults.append("license: missing: state the licence of the weights, as the hub spells it (`apache-2.0`, `mit`)")
    elif not _texts(licence):
        faults.append(f"license: {licence!r} is no text")
    elif licence == "other" and not data.get("license_name"):
        faults.append("license_name: missing: `license: other` needs a name, and `license_link` for its text")
    if not isinstance(data.get("pipeline_tag"), str):
        faults.append("pipeline_tag: missing: for a model that answers it is `text-generation`")
    return [f"{CARD}, {fault}" for fault in [*faults, *_base_faults(data.get("base_model"), adapter)]]


def _base_faults(base: Any, adapter: bool) -> list[str]:
    """Only a whole model may name no base: one that was tuned from none that a hub has."""
    bases = base if isinstance(base, list) else [base] if base else []
    wrong = [name for name in bases if not isinstance(name, str) or not HUB_NAME.fullmatch(name)]
    if wrong:
        return [
            f"base_model: {', '.join(map(str, wrong))} is no name on the hub (owner/name): give that, or leave it out"
        ]
    if not bases and adapter:
        return [
            "base_model: missing: nobody can use an adapter without its base; name it, or publish the merged model "
            "(`roslin export ADAPTER DIR --format merged`)"
        ]
    return []


def _section_faults(text: str) -> list[str]:
    headings = HEADING.findall(FENCE.sub("", text))
    missing = [what for what, words in SECTIONS.items() if not any(map(words.search, headings))]
    return [
        f"{CARD}: no heading under which it says {what}: add that section, or `roslin card FOLDER`" for what in missing
    ]


def _link_faults(text: str, names: Collection[str]) -> list[str]:
    """Links to files that are not sent along."""
    targets = ["".join(groups) for groups in LINK.findall(FENCE.sub("", text))]
    folders = {name[: at + 1] for name in names for at, c in enumerate(name) if c == "/"}
    there = {*names, *folders, *(folder[:-1] for folder in folders)}
    lost = [t for t in dict.fromkeys(targets) if not ELSEWHERE.match(t) and _file_of(t) not in there]
    return [f"{CARD}: links to {target}, which is not in the folder: add the file, or mend the link" for target in lost]


def _file_of(target: str) -> str:
    from urllib.parse import unquote

    return unquote(re.split(r"[?#]", target)[0]).removeprefix("./")


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(part, str) for part in value))
