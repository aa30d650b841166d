"""The harness's model class over a model of Roslin's, HFLM over the same, and requests to both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from roslin.evaluate.harness_model import RoslinLM


def instances(kind: str, arguments: Sequence[tuple[Any, ...]], docs: Sequence[int] | None = None) -> list[Instance]:
    documents = docs or range(len(arguments))
    return [Instance(kind, {}, found, 0, ("task", doc, 1)) for found, doc in zip(arguments, documents, strict=True)]


def ours(model: str | Path, **arguments: Any) -> RoslinLM:
    return RoslinLM(str(model), dtype="float32", device="cpu", **arguments)


def theirs(model: Path, **arguments: Any) -> HFLM:
    return HFLM(str(model), dtype="float32", device="cpu", batch_size=4, **arguments)
