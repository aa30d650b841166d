"""Writes the recipe's reference into the site from the Pydantic models that read recipes; see `mkdocs.yml`.

A page that holds the line `<!-- every setting -->` gets every setting, its type, default and meaning there.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from typing import TYPE_CHECKING, Any, get_args

from pydantic_core import PydanticUndefined

from roslin.tune.recipe import GROUPS, Recipe, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "<!-- every setting -->"
INTRO = {
    "held_out": "Which records are kept from training, and measured.",
    "adapter": "A LoRA instead of all weights; left out, all weights are tuned.",
    "optimizer": "How AdamW keeps what it needs.",
    "sharding": "How several processes share a model.",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs' event: replace the mark, where there is one."""
    return markdown.replace(MARK, reference()) if MARK in markdown else markdown


def reference() -> str:
    """The whole reference in Markdown."""
    parts = ["## The recipe", "", *_table(Recipe)]
    for name, group in GROUPS.items():
        parts += [f"## {name}", "", INTRO[name], "", *_table(group)]
    return "\n".join(parts)


def _table(kind: type[Settings]) -> Iterator[str]:
    said = docstrings(kind)
    yield from ("| setting | values | default | |", "|---|---|---|---|")
    for name, field in kind.model_fields.items():
        values = "a group, below" if name in GROUPS else _values(field)
        meaning = INTRO[name] if name in GROUPS and name not in said else said.get(name, "")
        yield f"| `{name}` | {values} | {_default(field)} | {_in_a_cell(meaning)} |"
    yield ""


def docstrings(kind: type[Settings]) -> dict[str, str]:
    """What stands below each field in the source."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def _values(field: Any) -> str:
    """A field's type in words, with its bounds."""
    words = _type_words(field.annotation)
    bounds = [bound for one in field.metadata if (bound := _bound(one))]
    nothing = ["or `null`"] if type(None) in get_args(field.annotation) and field.default is not None else []
    return " ".join([words, " and ".join(bounds), *nothing])


def _type_words(annotation: Any) -> str:
    """Choices as they are written; other types in words."""
    metadata = getattr(annotation, "__metadata__", None)
    if metadata is not None:
        return " ".join([_type_words(annotation.__origin__), *filter(None, map(_bound, metadata))])
    if "Literal" in str(getattr(annotation, "__origin__", "")):
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if getattr(annotation, "__origin__", None) in (list, dict, tuple) or not get_args(annotation):
        return _plain(annotation)
    return " or ".join(_type_words(part) for part in get_args(annotation) if part is not type(None))


def _plain(annotation: Any) -> str:
    names = {"str": "text", "int": "whole number", "float": "number", "bool": "yes or no", "Path": "path"}
    origin = getattr(annotation, "__origin__", None)
    inside = [_type_words(part) for part in get_args(annotation)]
    if origin is list:
        return f"list of {inside[0]}" if "`" not in inside[0] else f"any of {inside[0]}"
    if origin is dict:
        return "mapping of text to text"
    if origin is tuple:
        return "two numbers"
    return names[annotation.__name__]


def _bound(constraint: Any) -> str | None:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [f"{sign} {value}" for key, sign in signs.items() if (value := getattr(constraint, key, None)) is not None]
    return " and ".join(found) or None


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if value is None or isinstance(value, Settings):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and len(value) > 2:
        return f"{len(value)} of Dolly's"
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    if isinstance(value, float):
        return f"`{value:g}`".replace("e-0", "e-")
    return f"`{value}`"


def _in_a_cell(text: str) -> str:
    return re.sub(r"\|", r"\\|", text)
