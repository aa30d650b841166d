"""The answers of the two models: each is loaded, asked and let go before the other comes."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roslin.records import Record

if TYPE_CHECKING:
    from roslin.answer import Roslin
    from roslin.answer.answer import Keywords

Load = Callable[[], "Roslin"]


@dataclass(frozen=True)
class Answered:
    """A record with the answers of model a and model b."""

    record: Record
    a: str
    b: str


def answer_with_both(
    records: Sequence[Record],
    load_a: Load,
    load_b: Load,
    settings: "Keywords",
    on_model: Callable[[int], None] = lambda _: None,
) -> list[Answered]:
    """Both models' answers to the records, drawn with the same settings and seed, in the records' order.

    Records that do not fit one model's positions, with the longest answer, are left out. Only one model is in memory at
    a time. `on_model` is told how many records a model is about to answer.
    """
    first = _answers(records, load_a, settings, on_model)
    asked = [place for place, text in enumerate(first) if text is not None]
    second = _answers([records[place] for place in asked], load_b, settings, on_model)
    both = zip(asked, second, strict=True)
    return [Answered(records[place], first[place] or "", text) for place, text in both if text is not None]


def _answers(
    records: Sequence[Record], load: Load, settings: "Keywords", on_model: Callable[[int], None]
) -> list[str | None]:
    """One model's answers; None for a record that is too long for it. The model is gone from memory afterwards."""
    import torch

    roslin = load()
    try:
        room = roslin.decoder.config.positions - settings["max_new_tokens"]
        fits = [len(roslin.prompts.ids(record.instruction, record.context)) <= room for record in records]
        asked = [record for record, fit in zip(records, fits, strict=True) if fit]
        on_model(len(asked))
        answers = iter(roslin.answer_all(asked, **settings) if asked else [])
        return [next(answers).text if fit else None for fit in fits]
    finally:
        del roslin
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
