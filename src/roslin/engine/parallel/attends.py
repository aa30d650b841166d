"""Who sees whom in a pass, told to another process: it makes the same of it over its own cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from roslin.engine.blocks import blocks_for
from roslin.engine.cache import KVCache
from roslin.engine.paged import PagedAttention, Span, kernel_for
from roslin.errors import UsageError
from roslin.model import Attend
from roslin.model.finite import Watched


class SharedCache(KVCache):
    """The first process's part of a cache that every process has the heads of its own share of."""

    number: int
    """By which the others know theirs."""


@dataclass(frozen=True)
class Paged:
    """`PagedAttention`, its spans numbered as their rows of blocks are."""

    cache: int
    rows_RW: npt.NDArray[np.int32]
    spans: Sequence[Span]


@dataclass(frozen=True)
class OnGpu:
    """`GpuAttention`: what it knows of the pass's tokens, tensors by their places among those that cross."""

    cache: int
    tokens: Any


@dataclass(frozen=True)
class Crossing:
    """A tensor among those that cross beside a description."""

    place: int


@dataclass(frozen=True)
class InFloat16:
    """One that is watched."""

    inner: "Description"
    layers: int


Description = Paged | OnGpu | InFloat16


def described(attend: Attend) -> tuple[Description, list[Tensor]]:
    """What another process must know, and the tensors it needs. Raises UsageError for what is not paged."""
    if isinstance(attend, Watched):
        inner, tensors = described(attend.attend)
        return InFloat16(inner, attend.layers), tensors
    if isinstance(attend, PagedAttention) and isinstance(attend.cache, SharedCache):
        return _paged(attend, attend.cache.number), []
    parts: tuple[Any, ...] = getattr(attend, "parts", (None, None, None))
    cache, tables_SW, tokens = parts
    if not isinstance(cache, SharedCache):
        raise UsageError("A model in several processes answers and does no more: score with one process.")
    tensors = [tables_SW]
    return OnGpu(cache.number, _taken_out(tokens, tensors)), tensors


def made(what: Description, tensors: Sequence[Tensor], caches: Mapping[int, KVCache]) -> Attend:
    """The same, over one of this process's `caches`."""
    match what:
        case InFloat16(inner, layers):
            return Watched(made(inner, tensors, caches), layers)
        case Paged(number, rows_RW, spans):
            cache = caches[number]
            return PagedAttention(cache, kernel_for(cache.dtype, cache.device), rows_RW, spans)
        case OnGpu(number, tokens):
            from roslin.engine.gpu.paged import GpuAttention

            return GpuAttention(caches[number], tensors[0], _put_back(tokens, tensors))


def _paged(attend: PagedAttention, number: int) -> Paged:
    width = blocks_for(max(span.stop for span in attend.spans))
    rows_RW = np.ascontiguousarray(attend.rows_SW[[span.slot for span in attend.spans], :width])
    return Paged(number, rows_RW, [replace(span, slot=row) for row, span in enumerate(attend.spans)])


def _taken_out(value: Any, tensors: list[Tensor]) -> Any:
    """The value with a `Crossing` for each tensor in it, which goes to `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value.contiguous())
        return Crossing(len(tensors) - 1)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _taken_out(getattr(value, one.name), tensors) for one in fields(value)})
    return value


def _put_back(value: Any, tensors: Sequence[Tensor]) -> Any:
    if isinstance(value, Crossing):
        return tensors[value.place]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _put_back(getattr(value, one.name), tensors) for one in fields(value)})
    return value
