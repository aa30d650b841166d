"""A recipe's run as work: its updates by their tokens, of records that are here or of those of databricks-dolly-15k."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from roslin import prompt, records
from roslin.errors import InputError
from roslin.memory import Work
from roslin.model import find_model, text_source
from roslin.tokens import Tokenizer
from roslin.tune import dolly_15k
from roslin.tune.course import Course
from roslin.tune.dealing import deal
from roslin.tune.packing import join_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.tokens import Example
    from roslin.tune.recipe import HeldOut, Recipe

Size = tuple[int, int]
"""Tokens of a record in its prompt, and of its answer."""


@dataclass(frozen=True)
class Run:
    """A recipe's run as work."""

    work: Work
    updates: int
    tokens: int
    """Of all its epochs."""
    rows: Sequence[Sequence[int]] = field(repr=False)
    """The tokens of each row of each update."""

    def longest_pass(self, tokens_per_pass: int, processes: int = 1) -> int:
        """Tokens of the longest pass that its rows come to where they are joined up to `tokens_per_pass`."""
        return max(
            sum(sizes[row] for row in one)
            for sizes in self.rows
            for part in deal([[row] for row in range(len(sizes))], sizes, processes)
            for one in join_rows(part, sizes, tokens_per_pass)
        )


def run_of(course: Course, sizes: Sequence[Size], row_length: int) -> Run:
    """The work of a course over examples of these many tokens and answer tokens."""
    in_rows = [[sum(sizes[i][0] for i in row) for row in rows] for rows in course.after(0)]
    updates = [sum(rows) for rows in in_rows]
    tokens = sum(size for size, _ in sizes)
    work = Work(
        longest_update=max(updates),
        mean_update=sum(updates) / len(updates),
        row_length=row_length,
        answer_share=sum(answer for _, answer in sizes) / tokens,
        attended=sum(size * size for size, _ in sizes) / tokens,
    )
    return Run(work, len(updates), sum(updates), in_rows)


def sizes_of(examples: Sequence[Example]) -> list[Size]:
    """The sizes of examples."""
    return [(len(example.ids), example.answer_count) for example in examples]


def work_before_tuning(recipe: Recipe, model: Path | None) -> tuple[Run, str]:
    """The work of a recipe whose model and records need not be here, and in words what it was reckoned from.

    Records that are files here are counted, by the tokenizer of the `model` folder or, where there is none, by that of
    the base that ships. Else the lengths of databricks-dolly-15k stand for them. Which records are held out is not
    asked: every so many are left out.
    """
    sizes, source = _sizes(recipe, model)
    fitting = [size for size in sizes if size[0] < recipe.max_length]
    train = _without_held_out(fitting, recipe.held_out)
    if not train:
        raise InputError(f"Nothing to tune on: no record is shorter than max_length {recipe.max_length}.")
    course = Course(recipe, [tokens for tokens, _ in train])
    return run_of(course, train, recipe.row_length), source


def _sizes(recipe: Recipe, model: Path | None) -> tuple[list[Size], str]:
    if not all(_is_here(words) for words in recipe.records):
        return dolly_15k.lengths(), f"lengths as in {dolly_15k.NAME}, for the recipe's records are not here"
    folder = model or find_model("base")
    tokenizer = Tokenizer.load(text_source(folder))
    tokenizer.add_keys()
    found = records.load(recipe.records, mapping=recipe.mapping, keys=prompt.FORBIDDEN_IN_RECORDS)
    sizes = sizes_of(tokenizer.examples(found))
    by = (
        ""
        if model
        else ", counted by the shipped base's tokenizer, for the model's is not here: about a fifth too many"
    )
    return sizes, f"{len(sizes):,} records{by}"


def _is_here(words: str) -> bool:
    path = Path(words).expanduser().absolute()
    return path.exists() or any(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _without_held_out(sizes: Sequence[Size], held_out: HeldOut) -> list[Size]:
    if held_out.file:
        return list(sizes)
    share = held_out.fraction or 0.05
    count = round(share * len(sizes)) if held_out.split == "hash" else min(held_out.count or 200, len(sizes) - 1)
    left_out = {round(i * len(sizes) / count) for i in range(count)} if count else set()
    return [size for place, size in enumerate(sizes) if place not in left_out]
