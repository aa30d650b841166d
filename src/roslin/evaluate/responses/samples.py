"""A page of answers that nobody picked: a fixed shuffle of the records, failures included."""

import random
from collections.abc import Sequence
from html import escape

from roslin.errors import UsageError
from roslin.evaluate.responses.judged import Judged, LeftOut
from roslin.evaluate.responses.report import ResponseReport
from roslin.records.record import Record

SHOWN = 20

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 2rem auto; padding: 0 1rem; }
article { border-top: 1px solid #8888; padding: 1rem 0; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
h3 { font-size: .85rem; margin: 0 0 .25rem; opacity: .75; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; }
.context { max-height: 14rem; overflow: auto; opacity: .85; border-left: 3px solid #8888; padding-left: .75rem; }
.side { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1.5rem; margin-top: .75rem; }
.flag { background: #c33; color: #fff; border-radius: .25rem; padding: 0 .4rem; font-size: .8rem; margin-right: .3rem; }
.facts { font-size: .8rem; opacity: .75; }
"""


def samples_page(reports: Sequence[ResponseReport], *, count: int = SHOWN, seed: int = 0) -> str:
    """A whole HTML page with the first `count` records of a shuffle by `seed`, and every report's answer to each.

    It needs nothing from outside, and all text is escaped. Answers that are empty, did not stop, run in a loop, echo
    the question or hold a key are shown like any other, and marked. Raises UsageError for no report, or for a count
    below 1.
    """
    if not reports or count < 1:
        raise UsageError(f"A page of samples needs a report and at least one sample, not {len(reports)} and {count}.")
    shown = shuffled(reports, seed)[:count]
    articles = "\n".join(_article(number, reports) for number in shown)
    names = " and ".join(escape(report.model) for report in reports)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Samples: {names}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>Unselected samples</h1>\n"
        f"{_head(reports, len(shown), seed)}\n{articles}\n</body>\n</html>\n"
    )


def shuffled(reports: Sequence[ResponseReport], seed: int) -> list[int]:
    """Numbers of all records that some report has an answer to, in the order of the shuffle."""
    numbers = sorted({judged.number for report in reports for judged in report.judged})
    random.Random(seed).shuffle(numbers)
    return numbers


def _head(reports: Sequence[ResponseReport], shown: int, seed: int) -> str:
    records = len(shuffled(reports, seed))
    how = "".join(
        f"<li><b>{escape(report.model)}</b> ({escape(report.dtype)}): {escape(str(report.drawing))}; "
        f"left out as too long: {len(report.left_out)} of {len(report.judged) + len(report.left_out)} records</li>"
        for report in reports
    )
    return (
        f"<p>The first {shown} of {records} held-out records after a shuffle with seed {seed}. Nobody chose among "
        f"them: bad answers stand here as they came, and what can be seen to be wrong is marked.</p>\n<ul>{how}</ul>"
    )


def _article(number: int, reports: Sequence[ResponseReport]) -> str:
    found = [_of(report, number) for report in reports]
    record = next(each.record for each in found if isinstance(each, Judged))
    columns = [_column("Reference", record.response, [], "the record's own response")]
    columns += [_answer(report.model, each) for report, each in zip(reports, found, strict=True)]
    return (
        f"<article>\n<h2>Record {number}{_category(record)}</h2>\n{_text('text', record.instruction)}\n"
        f"{_text('text context', record.context) if record.context else ''}\n"
        f'<div class="side">\n{"".join(columns)}</div>\n</article>'
    )


def _of(report: ResponseReport, number: int) -> Judged | LeftOut | None:
    every: list[Judged | LeftOut] = [*report.judged, *report.left_out]
    return next((each for each in every if each.number == number), None)


def _category(record: Record) -> str:
    return f" · {escape(record.category)}" if record.category else ""


def _answer(model: str, found: Judged | LeftOut | None) -> str:
    if not isinstance(found, Judged):
        why = found.reason if found else "not among this model's records"
        return _column(model, "", [f"not asked: {why}"], "")
    facts = (
        f"{found.traits.tokens} tokens · ROUGE-L {found.rouge_l:.2f} · "
        f"reference at {found.likelihood.own_nll / found.likelihood.own_tokens:.2f} nats a token"
    )
    return _column(model, found.answer, found.faults, facts)


def _column(title: str, text: str, flags: Sequence[str], facts: str) -> str:
    marks = "".join(f'<span class="flag">{escape(flag)}</span>' for flag in flags)
    return (
        f"<section><h3>{escape(title)}</h3><p>{marks}</p>{_text('text', text)}"
        f'<p class="facts">{escape(facts)}</p></section>\n'
    )


def _text(name: str, text: str) -> str:
    return f'<div class="{name}">{escape(text)}</div>'
