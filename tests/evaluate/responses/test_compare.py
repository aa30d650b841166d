"""Two models judged by the same records."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.answer import Roslin
from roslin.errors import InputError, UsageError
from roslin.evaluate.responses import Drawing, Judged, ResponseReport, compare_responses, judge_responses
from roslin.evaluate.responses.change import sign_flip
from roslin.evaluate.responses.ratios import ratio_intervals
from roslin.records import Record
from roslin.statistics import paired_ratio_difference, ratio_interval

MakeJudged = Callable[..., Judged]
MakeReport = Callable[..., ResponseReport]


def test_a_model_that_is_better_throughout_is_said_to_be(judged: MakeJudged, report: MakeReport) -> None:
    before = [judged(n, nll=8 + n, own_nll=6 + n, rouge_l=0.1, stopped=False, echoed=True) for n in range(20)]
    after = [judged(n, nll=4 + n / 2, own_nll=3 + n / 2, rouge_l=0.1 + n / 100, length=9) for n in range(20)]
    found = compare_responses(report(before, "base"), report(after, "tuned"))
    by = found.overall.by_metric
    assert by["loss"].change is not None
    expected = paired_ratio_difference([8 + n for n in range(20)], [4 + n / 2 for n in range(20)], [4] * 20)
    assert by["loss"].change.interval is not None
    assert by["loss"].change.interval.low == pytest.approx(expected.low)
    assert by["loss"].change.interval.high == pytest.approx(expected.high)
    fall = -(4 + 9.5 / 2) / 4
    assert by["loss"].change.estimate == pytest.approx(fall)
    assert by["loss"].verdict == f"lower by {-fall:.3f} nats a token: better"
    assert by["perplexity"].change is not None
    assert by["perplexity"].change.estimate == pytest.approx(math.exp(fall))
    assert by["perplexity"].verdict == f"lower (× {math.exp(fall):.3g}): better"
    assert by["bits_per_byte"].verdict.endswith("bits a byte: better")
    assert by["rouge_l"].verdict == "higher by 0.095 F: better"
    assert by["stopped"].verdict == "higher by 100.0 points: better"
    assert by["stopped"].p == pytest.approx(0.5**20)
    assert by["echoed"].verdict == "lower by 100.0 points: better"
    assert by["length"].verdict == "higher by 7.0 tokens"
    assert by["empty"].verdict == "no difference"
    back = compare_responses(report(after), report(before)).overall.by_metric
    assert back["loss"].verdict.endswith(": worse")
    assert back["echoed"].verdict.endswith(": worse")


def test_a_difference_within_noise_is_said_to_be(judged: MakeJudged, report: MakeReport) -> None:
    before = [judged(n) for n in range(30)]
    after = [judged(n, rouge_l=0.5 + (-1) ** n * 0.2 + 0.001, stopped=n != 3) for n in range(30)]
    by = compare_responses(report(before), report(after)).overall.by_metric
    assert by["rouge_l"].verdict == "within noise"
    assert by["stopped"].verdict == "within noise"
    assert by["stopped"].p == 0.5  # one record of one: exact p 1, mid-p half
    assert by["loss"].verdict == "no difference"


def test_categories_are_corrected_for_each_other(judged: MakeJudged, report: MakeReport) -> None:
    before = [judged(n, category="open_qa" if n < 6 else "closed_qa") for n in range(26)]
    after = [replace(each, rouge_l=0.9, stopped=each.number > 1) for each in before]
    found = compare_responses(report(before), report(after))
    few, many = (found.by_category[name].by_metric["rouge_l"] for name in ("open_qa", "closed_qa"))
    assert found.by_category["open_qa"].records == 6
    assert few.change is not None
    assert few.change.interval is None  # a bootstrap of so few says too little
    assert few.p == pytest.approx(2 / 2**6)  # all six one way, and all six the other way
    assert few.adjusted == few.p  # the larger of the two
    assert few.verdict == "higher by 0.400 F: better"
    assert many.p is not None
    assert many.adjusted == pytest.approx(2 * many.p)
    assert found.by_category["open_qa"].by_metric["stopped"].verdict == "within noise"


def test_metrics_are_corrected_for_each_other(judged: MakeJudged, report: MakeReport) -> None:
    before = [judged(n) for n in range(6)]
    after = [replace(each, rouge_l=0.9) for each in before]
    by = compare_responses(report(before), report(after)).overall.by_metric
    assert by["rouge_l"].p == pytest.approx(2 / 2**6)
    assert by["rouge_l"].adjusted == pytest.approx(11 * 2 / 2**6)  # eleven tests; perplexities are those of losses
    assert by["rouge_l"].verdict == "within noise"
    falls = [replace(each, likelihood=replace(each.likelihood, nll=1.0)) for each in before]
    by = compare_responses(report(before), report(falls)).overall.by_metric
    assert by["perplexity"].adjusted == by["loss"].adjusted == pytest.approx(11 * 2 / 2**6)


def test_the_sign_flip_test_counts_the_choices_of_signs() -> None:
    assert sign_flip([0.0, 0.0]) == 1
    assert sign_flip([1, 2, 3]) == pytest.approx(2 / 8)
    assert sign_flip([0.1, 0.2, -0.3, 0.4]) == pytest.approx(10 / 16)  # by hand: |sum| >= 0.4 for ten of sixteen
    rng = random.Random(0)
    differences = [rng.gauss(0.4, 1) for _ in range(14)]
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=14)]
    exact = sum(each >= abs(sum(differences)) - 1e-9 for each in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 10_000))


def test_losses_over_other_tokens_are_not_compared(plain: Roslin, keyed: Roslin) -> None:
    records = [Record(instruction=f"Say {n}.", response=f"It is {n} and {n}.", category="open_qa") for n in range(12)]
    before, after = (judge_responses(m, records, drawing=Drawing(max_new_tokens=3)) for m in (plain, keyed))
    by = compare_responses(before, after).overall.by_metric
    for name in ("loss", "perplexity"):  # the end key is one token to the one, several to the other
        assert by[name].change is None
        assert by[name].verdict == "not comparable"
    for name in ("loss_without_end", "bits_per_byte"):
        assert by[name].change is not None


def test_records_of_one_model_alone_are_named(judged: MakeJudged, report: MakeReport) -> None:
    found = compare_responses(report([judged(n) for n in (1, 2, 3)]), report([judged(n) for n in (2, 3, 5)]))
    assert [first.number for first, _ in found.pairs] == [2, 3]
    assert found.unpaired == [1, 5]


def test_what_does_not_compare_is_refused(judged: MakeJudged, report: MakeReport) -> None:
    one = report([judged(1), judged(2)], "base")
    with pytest.raises(UsageError, match="drawn in different ways"):
        compare_responses(one, replace(one, drawing=Drawing(greedy=True)))
    with pytest.raises(InputError, match="judged by different records: 1 of 2 differ, the first of them record 2"):
        compare_responses(one, report([judged(1), judged(2, instruction="What is coffee?")]))
    with pytest.raises(InputError, match="no record in common"):
        compare_responses(one, report([judged(3)]))
    assert compare_responses(one, replace(one, drawing=Drawing(seed=1))).pairs


def test_a_comparison_is_json(judged: MakeJudged, report: MakeReport) -> None:
    found = compare_responses(report([judged(1)], "base"), report([judged(1, stopped=False)], "tuned"))
    told = json.loads(json.dumps(found.as_dict()))
    assert (told["before"], told["after"], told["records"]) == ("base", "tuned", 1)
    assert told["overall"]["stopped"]["change"]["estimate"] == -1
    assert told["overall"]["loss"]["change"] == {"estimate": 0.0, "low": None, "high": None}
    assert told["by_category"]["open_qa"]["stopped"]["verdict"] == "within noise"


@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(1, 9)), min_size=1, max_size=30))
@settings(max_examples=20, deadline=None)
def test_intervals_drawn_at_once_are_those_drawn_one_by_one(records: list[tuple[float, int]]) -> None:
    sums, counts = [first for first, _ in records], [second for _, second in records]
    together = ratio_intervals([sums, counts, sums], [counts, [1] * len(counts), [1] * len(counts)])
    alone = [
        ratio_interval(sums, counts),
        ratio_interval(counts, [1] * len(counts)),
        ratio_interval(sums, [1] * len(counts)),
    ]
    for one, other in zip(together, alone, strict=True):
        assert [one.estimate, one.low, one.high] == pytest.approx([other.estimate, other.low, other.high])
