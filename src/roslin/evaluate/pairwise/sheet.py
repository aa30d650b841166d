"""A blind sheet: a sample of records with two models' answers, the sides shuffled, as one page that stands alone."""

import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import orjson

from roslin.errors import InputError
from roslin.evaluate.pairwise.answers import Answered
from roslin.evaluate.pairwise.key import Item, Key, digest
from roslin.evaluate.pairwise.pair import Pair
from roslin.records import Record

PLACE = "/*SHEET*/"
"""Where the page takes its data."""


def draw(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """`count` of the records (all, if there are no more), in an order that the seed fixes."""
    order = np.random.default_rng(seed).permutation(len(records))
    return [records[place] for place in order[:count]]


def make_key(
    answered: Sequence[Answered],
    models: tuple[str, str],
    *,
    seed: int,
    settings: Mapping[str, Any],
    left_out: int = 0,
    with_reference: bool = False,
) -> Key:
    """The pairs of a sheet and their key. Each model stands on the left in half of the pairs, which ones is shuffled.

    Raises InputError when there is nothing to judge.
    """
    if not answered:
        raise InputError("There is no pair to judge: every record is too long for one of the models.")
    a_is_left = _sides(len(answered), models, seed)
    items = tuple(
        Item(
            pair=Pair(
                number=number,
                instruction=both.record.instruction,
                context=both.record.context,
                reference=both.record.response if with_reference else None,
                left=both.a if left else both.b,
                right=both.b if left else both.a,
            ),
            category=both.record.category,
            left_is="a" if left else "b",
        )
        for number, (both, left) in enumerate(zip(answered, a_is_left, strict=True), 1)
    )
    return Key(
        sheet=digest([item.pair for item in items]),
        model_a=models[0],
        model_b=models[1],
        seed=seed,
        settings=dict(settings),
        left_out=left_out,
        items=items,
    )


def _sides(count: int, models: tuple[str, str], seed: int) -> list[bool]:
    """For each pair whether model a stands on the left.

    The models' names go into the shuffle: a judge who knows Roslin and its default seed could else work out the sides.
    """
    material = hashlib.sha256(orjson.dumps([seed, *models])).digest()
    rng = np.random.default_rng(list(material))
    odd_one = bool(rng.integers(2))
    sides = [True] * (count // 2) + [False] * (count // 2) + [odd_one] * (count % 2)
    return [sides[place] for place in rng.permutation(count)]


def as_page(key: Key) -> str:
    """The sheet as HTML: the pairs of the key and their hash, and nothing else of it."""
    shown = {"sheet": key.sheet, "pairs": [pair.model_dump() for pair in key.pairs]}
    # Answers may hold anything, "</script>" too; as escapes of JSON these characters end nothing.
    data = orjson.dumps(shown).decode().replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    page = files("roslin.evaluate.pairwise").joinpath("sheet.html").read_text(encoding="utf-8")
    before, _, after = page.partition(PLACE)
    return before + data + after
