"""Judging a model by held-out records: it scores the responses, and answers the same prompts itself."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from roslin.answer import Answer, Roslin
from roslin.answer.answer import check_text
from roslin.engine import score
from roslin.errors import InputError
from roslin.evaluate.responses.drawing import Drawing
from roslin.evaluate.responses.judged import NO_CATEGORY, Judged, LeftOut
from roslin.evaluate.responses.likelihood import Likelihood, ScoredRow
from roslin.evaluate.responses.report import ResponseReport
from roslin.evaluate.responses.rouge import rouge_l
from roslin.evaluate.responses.traits import Traits, traits
from roslin.records.record import Record

T = TypeVar("T")

AT_ONCE = 64
"""Records between two tellings of progress: several batches of answers, so that few places stand empty at the end."""


@dataclass(frozen=True)
class Progress:
    """How far the work is."""

    stage: Literal["scored", "answered"]
    done: int
    total: int


def silent(_: Progress) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class _Asked:
    number: int
    record: Record
    scored: ScoredRow


def judge_responses(
    model: Roslin,
    records: Sequence[Record],
    *,
    name: str = "model",
    drawing: Drawing | None = None,
    progress: Callable[[Progress], None] = silent,
) -> ResponseReport:
    """Judge `model` by held-out records.

    Records that the model has too few positions for are left out and named in the report. Raises InputError when there
    are no records, listing every record with broken content, and when none fits; MachineError when the model's numbers
    are none.
    """
    how = drawing or Drawing()
    require_sound(model, records)
    asked, left_out = _fitting(model, records, how.max_new_tokens)
    if not asked:
        raise InputError(
            f"None of the {len(records)} records fits into the model's positions: {left_out[0]}. "
            "Judge by shorter records, ask for fewer new tokens, or stretch the positions (rope scaling)."
        )
    likelihoods = list(_score(model, [each.scored for each in asked], progress))
    answers = list(answer_in_parts(model, [(a.record.instruction, a.record.context) for a in asked], how, progress))
    judged = [_judged(model, *parts) for parts in zip(asked, likelihoods, answers, strict=True)]
    dtype = str(model.dtype).removeprefix("torch.")
    return ResponseReport(name, dtype, how, judged, left_out)


def require_sound(model: Roslin, records: Sequence[Record]) -> None:
    """Raise InputError when there are no records, or listing every one with broken content."""
    if not records:
        raise InputError("There are no records to judge by. Give a file with at least one record.")
    faults = [(number, _faults(model, record)) for number, record in enumerate(records, 1)]
    found = [f"record {number}: {'; '.join(told)}." for number, told in faults if told]
    if found:
        raise InputError("\n".join([f"{len(found)} of {len(records)} records cannot be judged by:", *found]))


def _faults(model: Roslin, record: Record) -> list[str]:
    found = [f"the {field} is empty" for field in ("instruction", "response") if not getattr(record, field).strip()]
    try:
        for field in ("instruction", "context", "response"):
            check_text(field, getattr(record, field))
        model.prompts.ids(record.instruction, record.context)
    except InputError as error:
        found.append(str(error).removesuffix("."))
    return found


def _fitting(model: Roslin, records: Sequence[Record], new: int) -> tuple[list[_Asked], list[LeftOut]]:
    positions = model.decoder.config.positions
    asked: list[_Asked] = []
    left_out: list[LeftOut] = []
    for number, record in enumerate(records, 1):
        scored = ScoredRow.of(model, record.instruction, record.context, record.response)
        whole, prompt = len(scored.row.ids), scored.row.start
        if max(whole, prompt + new) <= positions:
            asked.append(_Asked(number, record, scored))
            continue
        what = f"{whole:,} tokens with its response" if whole > positions else f"{prompt:,} tokens of prompt"
        room = "" if whole > positions else f" and {new:,} new ones"
        reason = f"{what}{room}, and the model has {positions:,} positions"
        left_out.append(LeftOut(number, record.category or NO_CATEGORY, reason))
    return asked, left_out


def _score(model: Roslin, rows: Sequence[ScoredRow], progress: Callable[[Progress], None]) -> Iterator[Likelihood]:
    done = 0
    for part in _parts(rows):
        logprobs = score(model.decoder, [scored.row for scored in part])
        yield from (scored.likelihood(found) for scored, found in zip(part, logprobs, strict=True))
        done += len(part)
        progress(Progress("scored", done, len(rows)))


def answer_in_parts(
    model: Roslin, questions: Sequence[tuple[str, str]], how: Drawing, progress: Callable[[Progress], None]
) -> Iterator[Answer]:
    """Answers to instructions with their contexts, in order, telling how far it is after every AT_ONCE of them."""
    done = 0
    for part in _parts(questions):
        yield from model.answer_all(part, **how.keywords)
        done += len(part)
        progress(Progress("answered", done, len(questions)))


def _judged(model: Roslin, asked: _Asked, likelihood: Likelihood, answer: Answer) -> Judged:
    record = asked.record
    return Judged(
        number=asked.number,
        record=record,
        likelihood=likelihood,
        answer=answer.text,
        stopped=answer.finish_reason == "stop",
        traits=_traits(model, record, answer.text),
        reference=_traits(model, record, record.response),
        rouge_l=rouge_l(record.response, answer.text),
    )


def _traits(model: Roslin, record: Record, text: str) -> Traits:
    return traits(record, text, len(model.tokenizer.encode(text)))


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
