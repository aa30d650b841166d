"""Judging a model by records."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from roslin.answer import Roslin
from roslin.errors import InputError, MachineError
from roslin.evaluate.responses import Drawing, Judged, LeftOut, Progress, ResponseReport, judge_responses, rouge_l
from roslin.model import load_decoder
from roslin.records import Record
from roslin.statistics import ratio_interval, wilson_interval
from roslin.tokens import Tokenizer

RECORDS = [
    Record(instruction=f"Say {n} and {n + 1}.", response=f"{n} and then {n + 1}.", category=["open_qa", ""][n % 2])
    for n in range(5)
]
SHORT = Drawing(seed=3, max_new_tokens=6)


def test_answers_are_those_of_asking_one_by_one(keyed: Roslin) -> None:
    told: list[Progress] = []
    report = judge_responses(keyed, RECORDS, name="tiny", drawing=SHORT, progress=told.append)
    assert (report.model, report.dtype, report.drawing, report.left_out) == ("tiny", "float32", SHORT, [])
    assert [judged.number for judged in report.judged] == [1, 2, 3, 4, 5]
    assert [judged.category for judged in report.judged] == ["open_qa", "none", "open_qa", "none", "open_qa"]
    for record, judged in zip(RECORDS, report.judged, strict=True):
        alone = keyed.answer(record.instruction, record.context, seed=3, max_new_tokens=6)
        assert judged.answer == alone.text
        assert judged.stopped == (alone.finish_reason == "stop")
        assert judged.rouge_l == rouge_l(record.response, alone.text)
        assert judged.traits.tokens == len(keyed.tokenizer.encode(alone.text))
        assert judged.reference.tokens == len(keyed.tokenizer.encode(record.response))
    assert told == [Progress("scored", 5, 5), Progress("answered", 5, 5)]


def test_a_seed_repeats_and_another_differs_and_greedy_needs_none(keyed: Roslin) -> None:
    def answers(drawing: Drawing) -> list[str]:
        return [judged.answer for judged in judge_responses(keyed, RECORDS, drawing=drawing).judged]

    assert answers(SHORT) == answers(SHORT)
    assert answers(SHORT) != answers(Drawing(seed=4, max_new_tokens=6))
    assert answers(Drawing(seed=3, greedy=True, max_new_tokens=6)) == answers(Drawing(greedy=True, max_new_tokens=6))


def test_progress_is_told_part_by_part(keyed: Roslin, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge_responses(keyed, RECORDS, drawing=SHORT)
    monkeypatch.setattr("roslin.evaluate.responses.judge.AT_ONCE", 2)
    told: list[Progress] = []
    report = judge_responses(keyed, RECORDS, drawing=SHORT, progress=told.append)
    assert [(each.stage, each.done) for each in told] == [
        *(("scored", n) for n in (2, 4, 5)),
        *(("answered", n) for n in (2, 4, 5)),
    ]
    assert [judged.answer for judged in report.judged] == [judged.answer for judged in whole.judged]


def test_records_that_are_too_long_are_left_out_and_named(keyed: Roslin) -> None:
    long = [
        Record(instruction="Go on.", response="word " * 600, category="open_qa"),
        RECORDS[0],
        Record(instruction="Sum up.", context="word " * 450, response="Words."),
    ]
    report = judge_responses(keyed, long, drawing=Drawing(max_new_tokens=30))
    assert [judged.number for judged in report.judged] == [2]
    first, third = report.left_out
    assert isinstance(first, LeftOut)
    assert (first.number, first.category, third.number, third.category) == (1, "open_qa", 3, "none")
    assert "tokens with its response, and the model has 512 positions" in str(first)
    assert "tokens of prompt and 30 new ones, and the model has 512 positions" in str(third)
    with pytest.raises(InputError, match="None of the 1 records fits into the model's positions: record 1: "):
        judge_responses(keyed, long[:1])


def test_broken_records_are_all_listed(keyed: Roslin) -> None:
    broken = [
        RECORDS[0],
        Record(instruction=" ", response=""),
        Record.model_construct(instruction="Say it.", context="\ud800", response="It.", category=""),
    ]
    with pytest.raises(InputError) as error:
        judge_responses(keyed, broken)
    assert str(error.value).splitlines() == [
        "2 of 3 records cannot be judged by:",
        "record 2: the instruction is empty; the response is empty.",
        "record 3: the context is not valid Unicode text: it holds half a surrogate pair.",
    ]
    with pytest.raises(InputError, match="no records to judge by"):
        judge_responses(keyed, [])


def test_settings_that_draw_no_answer_are_refused() -> None:
    with pytest.raises(InputError, match=r"max_new_tokens is 0.*"):
        Drawing(max_new_tokens=0, top_p=2)


def test_a_model_whose_numbers_are_none_is_told(tiny_folder: Path) -> None:
    decoder = load_decoder(tiny_folder, dtype=torch.float32)
    with torch.no_grad():
        decoder.head.weight.fill_(math.nan)
    broken = Roslin(decoder, Tokenizer.load(tiny_folder))
    with pytest.raises(MachineError):
        judge_responses(broken, RECORDS, drawing=SHORT)


def test_figures_are_sums_over_records(
    judged: Callable[..., Judged], report: Callable[[list[Judged]], ResponseReport]
) -> None:
    records = [
        judged(n, nll=2.0 * n, tokens=n + 1, own_nll=1.0 * n, own_tokens=n, length=10 * n, rouge_l=n / 20, loops=n > 9)
        for n in range(1, 13)
    ]
    found = report(records).overall
    by = found.by_metric
    assert found.records == 12
    loss = ratio_interval([2 * n for n in range(1, 13)], [n + 1 for n in range(1, 13)])
    assert by["loss"].interval is not None
    assert by["loss"].interval.low == pytest.approx(loss.low)
    assert by["loss"].estimate == pytest.approx(2 * 78 / 90)
    assert by["loss_without_end"].estimate == 1
    assert by["perplexity"].estimate == pytest.approx(math.exp(loss.estimate))
    assert by["perplexity"].interval is not None
    assert by["perplexity"].interval.high == pytest.approx(math.exp(loss.high))
    assert by["bits_per_byte"].estimate == pytest.approx(78 / math.log(2) / (12 * 12))
    assert by["rouge_l"].estimate == pytest.approx(78 / 20 / 12)
    assert by["loops"].interval == wilson_interval(3, 12)
    assert by["stopped"].interval == wilson_interval(12, 12)
    assert by["length"].estimate == 65
    assert (found.length.lower, found.length.median, found.length.upper) == (37.5, 65, 92.5)
    assert report(records).references.by_metric.keys() == {"length", "repetition", "loops", "empty", "echoed", "keys"}
    assert report(records).references.by_metric["length"].estimate == 3


def test_few_records_get_no_bootstrap_interval(
    judged: Callable[..., Judged], report: Callable[[list[Judged]], ResponseReport]
) -> None:
    found = report([judged(n, category="open_qa" if n < 10 else "closed_qa") for n in range(1, 20)])
    few, enough = found.by_category["open_qa"].by_metric, found.by_category["closed_qa"].by_metric
    assert list(found.by_category) == ["closed_qa", "open_qa"]
    assert few["loss"].interval is None
    assert few["loss"].as_dict() == {"estimate": 2.0, "low": None, "high": None}
    assert few["stopped"].interval == wilson_interval(9, 9)
    assert enough["loss"].interval is not None


def test_a_report_is_json(judged: Callable[..., Judged], report: Callable[[list[Judged]], ResponseReport]) -> None:
    told = json.loads(json.dumps(report([judged(1), judged(2, stopped=False, answer="", empty=True)]).as_dict()))
    assert told["records"] == 2
    assert told["drawing"]["seed"] == 0
    assert told["overall"]["stopped"]["estimate"] == 0.5
    assert told["by_category"]["open_qa"]["records"] == 2
    assert told["answers"][1]["faults"] == ["empty", "did not stop"]
    assert told["answers"][0]["nll_without_end"] == 6.0
