"""torch's no_grad and enable_grad for whole functions, such that Ctrl-C leaves the thread as it was.

torch's own come and go by functions written in Python, at whose beginnings Python looks for signals: a Ctrl-C that is
seen as one of them begins leaves a thread without gradients for good (or, from inference_mode, until some later
collection of garbage), and whatever it tunes next fails. torch uses them itself where models are made and moved.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def no_grad(function: Callable[P, R]) -> Callable[P, R]:
    """`function` without gradients, like `torch.no_grad()` above it; not for generators."""
    return _in_mode(function, enabled=False)


def enable_grad(function: Callable[P, R]) -> Callable[P, R]:
    """`function` with gradients, like `torch.enable_grad()` above it; not for generators."""
    return _in_mode(function, enabled=True)


def _in_mode(function: Callable[P, R], *, enabled: bool) -> Callable[P, R]:
    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        before = torch.is_grad_enabled()
        try:
            torch._C._set_grad_enabled(enabled)
            return function(*args, **kwargs)
        finally:  # no signal is seen between the end of `try` and a function written in C
            try:
                torch._C._set_grad_enabled(before)
            except BaseException:  # Ctrl-C in what a default device has torch call first, which is written in Python
                torch._C._set_grad_enabled(before)
                raise

    return guarded
