"""What is measured of every record, and how records are added up."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from roslin.evaluate.responses.judged import Judged

Better = Literal["lower", "higher", "neither"]
Form = Literal["ratio", "exponential", "share"]


@dataclass(frozen=True)
class Metric:
    """A figure of a set of records: sum of `amount` over sum of `count`, or the exponential of that."""

    name: str
    title: str
    unit: str
    better: Better
    form: Form
    amount: Callable[[Judged], float]
    count: Callable[[Judged], float]
    decimals: int
    of_answers: bool
    """Whether it looks at nothing but the text, so that the records' own responses can be measured the same way."""


def _one(_: Judged) -> float:
    return 1


def _loss(name: str, title: str, unit: str, form: Form, *, end: bool) -> Metric:
    def nll(judged: Judged) -> float:
        return judged.likelihood.nll if end else judged.likelihood.own_nll

    def tokens(judged: Judged) -> float:
        return judged.likelihood.tokens if end else judged.likelihood.own_tokens

    return Metric(name, title, unit, "lower", form, nll, tokens, 1 if form == "exponential" else 3, False)


def _share(name: str, title: str, better: Better, holds: Callable[[Judged], bool], *, of_answers: bool) -> Metric:
    return Metric(name, title, "of the answers", better, "share", holds, _one, 3, of_answers)


METRICS = (
    _loss("loss", "response loss", "nats a token", "ratio", end=True),
    _loss("loss_without_end", "response loss, end key left out", "nats a token", "ratio", end=False),
    _loss("perplexity", "perplexity", "", "exponential", end=True),
    _loss("perplexity_without_end", "perplexity, end key left out", "", "exponential", end=False),
    Metric(
        "bits_per_byte",
        "bits per byte of the response",
        "bits a byte",
        "lower",
        "ratio",
        lambda judged: judged.likelihood.own_nll / math.log(2),
        lambda judged: judged.likelihood.size,
        3,
        False,
    ),
    Metric("rouge_l", "ROUGE-L against the reference", "F", "higher", "ratio", lambda j: j.rouge_l, _one, 3, False),
    _share("stopped", "stopped by itself", "higher", lambda j: j.stopped, of_answers=False),
    Metric("length", "mean length", "tokens", "neither", "ratio", lambda j: j.traits.tokens, _one, 1, True),
    Metric(
        "repetition",
        "repeated 4-grams",
        "of an answer's 4-grams",
        "lower",
        "ratio",
        lambda j: j.traits.repetition,
        _one,
        3,
        True,
    ),
    _share("loops", "repeats itself in a loop", "lower", lambda j: j.traits.loops, of_answers=True),
    _share("empty", "empty", "lower", lambda j: j.traits.empty, of_answers=True),
    _share("echoed", "echoes the question", "lower", lambda j: j.traits.echoed, of_answers=True),
    _share("keys", "holds a key of the prompt", "lower", lambda j: j.traits.keys, of_answers=True),
)
"""Perplexity is the exponential of the mean loss. Bits per byte count the response's own tokens and UTF-8 bytes, so
they compare models with different tokenizers, which losses a token do not."""

BY_NAME = {metric.name: metric for metric in METRICS}
