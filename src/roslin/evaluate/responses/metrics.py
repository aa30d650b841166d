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
    """What a difference is told in; shares differ by points."""
    better: Better
    form: Form
    amount: Callable[[Judged], float]
    count: Callable[[Judged], float]
    decimals: int
    of_answers: bool
    """Whether it looks at nothing but the text, so that the records' own responses can be measured the same way."""


def _one(_: Judged) -> float:
    return 1


def _nll(judged: Judged) -> float:
    return judged.likelihood.nll


def _tokens(judged: Judged) -> float:
    return judged.likelihood.tokens


def _own_nll(judged: Judged) -> float:
    return judged.likelihood.own_nll


def _own_tokens(judged: Judged) -> float:
    return judged.likelihood.own_tokens


def _share(name: str, title: str, better: Better, holds: Callable[[Judged], bool], *, of_answers: bool) -> Metric:
    return Metric(name, title, "of the answers", better, "share", holds, _one, 3, of_answers)


METRICS = (
    Metric("loss", "loss, nats a token", "nats a token", "lower", "ratio", _nll, _tokens, 3, False),
    Metric(
        "loss_without_end", "loss without end key", "nats a token", "lower", "ratio", _own_nll, _own_tokens, 3, False
    ),
    Metric("perplexity", "perplexity", "", "lower", "exponential", _nll, _tokens, 1, False),
    Metric(
        "perplexity_without_end",
        "perplexity without end key",
        "",
        "lower",
        "exponential",
        _own_nll,
        _own_tokens,
        1,
        False,
    ),
    Metric(
        "bits_per_byte",
        "bits per byte",
        "bits a byte",
        "lower",
        "ratio",
        lambda judged: judged.likelihood.own_nll / math.log(2),
        lambda judged: judged.likelihood.size,
        3,
        False,
    ),
    Metric("rouge_l", "ROUGE-L, F measure", "F", "higher", "ratio", lambda j: j.rouge_l, _one, 3, False),
    _share("stopped", "stopped by itself", "higher", lambda j: j.stopped, of_answers=False),
    Metric("length", "length, mean of tokens", "tokens", "neither", "ratio", lambda j: j.traits.tokens, _one, 1, True),
    Metric(
        "repetition",
        "4-grams said before",
        "of the 4-grams",
        "lower",
        "ratio",
        lambda j: j.traits.repetition,
        _one,
        3,
        True,
    ),
    _share("loops", "runs in a loop", "lower", lambda j: j.traits.loops, of_answers=True),
    _share("empty", "empty", "lower", lambda j: j.traits.empty, of_answers=True),
    _share("echoed", "echoes the question", "lower", lambda j: j.traits.echoed, of_answers=True),
    _share("keys", "holds a prompt's key", "lower", lambda j: j.traits.keys, of_answers=True),
)
"""Perplexity is the exponential of the mean loss. Bits per byte count the response's own tokens and UTF-8 bytes, so
they compare models with different tokenizers, which losses a token do not."""

BY_NAME = {metric.name: metric for metric in METRICS}
