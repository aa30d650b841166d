import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType

import pytest
import torch

from roslin.model.grad_mode import enable_grad, no_grad
from roslin.model.load import load_decoder


def interrupted(function: Callable[[], object]) -> Iterator[int]:
    """Call `function` again and again, each time with Ctrl-C at the next moment at which Python looks for signals.

    Those are the beginning of every function written in Python and the end of every one that is not.
    """
    left = moment = 0

    def ctrl_c(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal left
        if event in ("call", "c_return", "c_exception"):
            left -= 1
            if not left:
                raise KeyboardInterrupt

    while left <= 0:
        moment += 1
        left = moment + 1  # this very call of setprofile ends first
        try:
            sys.setprofile(ctrl_c)
            function()
        except KeyboardInterrupt:
            pass
        finally:
            sys.setprofile(None)
        yield moment


def work() -> None:
    """What changes the mode itself, and by torch's means, which Ctrl-C may stop from changing it back."""
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            torch.ones(2).sum()


@pytest.mark.parametrize("wrap", [no_grad, enable_grad])
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("device", [nullcontext(), torch.device("cpu")], ids=["", "with a default device"])
def test_ctrl_c_at_any_moment_leaves_the_mode_as_it_was(
    wrap: Callable[[Callable[[], None]], Callable[[], None]], before: bool, device: AbstractContextManager[object]
) -> None:
    wrapped = wrap(work)
    with torch.set_grad_enabled(before), device:
        moments = 0
        for moments in interrupted(wrapped):
            assert torch.is_grad_enabled() is before, f"moment {moments}"
    assert moments > 20


@pytest.mark.parametrize(("wrap", "within"), [(no_grad, False), (enable_grad, True)])
def test_a_function_runs_in_its_mode_and_returns_and_raises_as_without(
    wrap: Callable[[Callable[[int], int]], Callable[[int], int]], within: bool
) -> None:
    @wrap
    def tenth(number: int) -> int:
        """Of ten."""
        assert torch.is_grad_enabled() is within
        return 10 // number

    assert tenth(number=2) == 5
    assert tenth.__doc__ == "Of ten."
    for before in (True, False):
        with torch.set_grad_enabled(before):
            with pytest.raises(ZeroDivisionError):
                tenth(0)
            assert torch.is_grad_enabled() is before


@pytest.mark.parametrize("wanted", [1, 2, 20])
def test_ctrl_c_while_a_model_is_made_leaves_gradients_on(base_folder: Path, wanted: int) -> None:
    """torch makes and moves modules without gradients, and is interrupted as it is about to go back."""
    seen = 0

    def watch(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal seen
        if event == "call" and frame.f_code is torch.no_grad.__exit__.__code__:
            seen += 1
            if seen == wanted:
                raise KeyboardInterrupt

    try:
        sys.setprofile(watch)
        with pytest.raises(KeyboardInterrupt):
            load_decoder(base_folder)
    finally:
        sys.setprofile(None)
    assert torch.is_grad_enabled()
