"""The card's metadata, as the hub reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import ModelCardData

from roslin.errors import InputError
from roslin.publish.card.results import eval_results

if TYPE_CHECKING:
    from pathlib import Path

    from roslin.publish.card.facts import CardFacts

_HEADER = re.compile(r"\A---\r?\n(?P<yaml>(?:.*\r?\n)*?)---\r?\n")
OWN_KEYS = frozenset({"license", "base_model", "base_model_relation", "model-index", "library_name", "pipeline_tag"})
"""What is left out where nothing is known of it, whatever stood there before."""
TAGS = ("roslin", "dolly", "instruction-tuned")


def metadata(facts: CardFacts) -> dict[str, Any]:
    """What is known, under the hub's keys; made and checked by huggingface_hub's own classes."""
    tuning, adapter = facts.evidence.tuning, facts.files.adapter
    base = tuning.base.hub_name if tuning else None
    sources = tuning.records.sources if tuning else []
    datasets = [source.name.partition(":")[0] for source in sources if source.sha256 is None]  # files have a hash
    results = eval_results(facts.evidence)
    data: Any = ModelCardData(
        language=list(tuning.languages) if tuning and tuning.languages else None,
        license=facts.licence,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=base,
        base_model_relation=("adapter" if adapter else "finetune") if base else None,
        datasets=datasets or None,
        tags=[*(TAGS if tuning else ()), *(["lora"] if tuning and adapter else [])] or None,
        model_name=facts.name if results else None,
        eval_results=results or None,
    )
    return dict(data.to_dict())


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """New metadata, with what a person added to the old: keys and tags of their own."""
    kept = {key: value for key, value in old.items() if key not in new and key not in OWN_KEYS}
    if isinstance(old.get("tags"), list) and "tags" in new:
        new = new | {"tags": list(dict.fromkeys([*new["tags"], *old["tags"]]))}
    return new | kept


def header_text(data: dict[str, Any]) -> str:
    """The metadata as a card begins with it."""
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100).strip()}\n---\n"


def split_header(card: Path, text: str) -> tuple[dict[str, Any], str]:
    """A card's metadata, and the rest. Raises InputError for metadata that are no YAML mapping."""
    text = text.removeprefix("\ufeff")  # some editors begin a file with it, and the hub then sees no metadata
    found = _HEADER.match(text)
    if not found:
        return {}, text
    try:
        data = yaml.safe_load(found["yaml"])
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" in line {where.line + 2}" if where else ""
        raise InputError(f"{card}: its metadata, between the `---` at its top, is no YAML{line}. Mend it.") from None
    if data is not None and not isinstance(data, dict):
        raise InputError(f"{card}: its metadata, between the `---` at its top, must be a YAML mapping. Mend it.")
    return data or {}, text[found.end() :]
