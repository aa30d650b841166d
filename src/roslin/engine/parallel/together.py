"""Beginning and end of a model in several processes: all meet and load, the first goes on, the others work for it."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

import torch

from roslin.engine.capacity import free_memory
from roslin.engine.network import Network
from roslin.engine.parallel.decoder import ParallelDecoder, follow
from roslin.engine.parallel.layers import joined
from roslin.engine.parallel.lines import EXIT_CODE, Whereabouts
from roslin.engine.parallel.team import LIMIT, End, Team
from roslin.errors import InputError, RoslinError, out_of_memory
from roslin.model import Decoder, ModelConfig
from roslin.model.share import Share

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

Load = Callable[[Share, torch.device], tuple[Decoder, ModelConfig]]
"""A share of a model on a device, as `load_share` gives it, and the whole model's configuration."""


@dataclass(frozen=True)
class _Loaded:
    """What a process tells the others of its loading."""

    where: Whereabouts
    free: tuple[int, int]
    model: tuple[ModelConfig, torch.dtype] | None
    error: RoslinError | None


def hold_together(device: torch.device, load: Load, limit: float = LIMIT) -> ParallelDecoder:
    """Have torchrun's processes hold one model. In all but the first this ends with SystemExit, when the first ends.

    `limit` (seconds) bounds every exchange, the wait for the slowest to load included. Raises in the first process
    what `load` has raised in any, and InputError where they have not loaded the same model in the same dtype.
    """
    interruption = _Interruption()
    team = Team(device, limit)
    if not team.is_first:
        interruption.ends_this_process()
    share, loaded = _load(load, team)
    everybody = team.collected(loaded)
    fault = _fault(everybody)
    if not team.is_first:
        _work(None if fault else share, team, interruption)
    if fault is not None:
        team.dismiss()
        raise fault
    assert share is not None and loaded.model is not None
    config, _ = loaded.model
    decoder = ParallelDecoder(share, team, config.vocab_rows, min(one.free for one in everybody))
    atexit.register(decoder.end)
    return decoder


def _load(load: Load, team: Team) -> tuple[Network | None, _Loaded]:
    share, model, error = None, None, None
    try:
        decoder, config = load(team.share, team.device)
        share, model = joined(decoder, team.share, team.sum), (config, decoder.dtype)
    except RoslinError as caught:
        error = caught
    free, memory = free_memory(team.device)
    if team.device.type == "cpu":
        free, memory = free // team.neighbours, memory // team.neighbours
    return share, _Loaded(Whereabouts.here(team.share.rank), (free, memory), model, error)


def _fault(everybody: list[_Loaded]) -> RoslinError | None:
    """What keeps them from going on, if anything does: the first process's error, another one's, or a difference."""
    first = everybody[0]
    for one in everybody:
        if one.error is not None:
            return one.error if one is first else type(one.error)(f"{one.where}: {one.error}")
    for one in everybody:
        if one.model != first.model:
            return InputError(f"{one.where} has loaded another model or dtype than rank 0: give all the same.")
    return None


def _work(share: Network | None, team: Team, interruption: "_Interruption") -> NoReturn:
    """Work for the first process, and end as quietly as can be: it is the one to tell what there is to tell."""
    if share is None:
        _wait_for_end(team, interruption)
        sys.exit(0)
    interruption.is_only_noted()
    try:
        follow(share, team)
    except EOFError:
        _end_alone(team, interruption)
    except Exception as error:
        if isinstance(error, RuntimeError) and not out_of_memory(error):
            _wait_for_end(team, interruption, while_there_is_news=True)  # it may be why an exchange has failed
        team.line.confess(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}")
        os._exit(EXIT_CODE)
    team.leave()
    sys.exit(0)


def _wait_for_end(team: Team, interruption: "_Interruption", *, while_there_is_news: bool = False) -> None:
    """End when the first process does."""
    try:
        while not while_there_is_news or team.line.has_news():
            what, _ = team.hear()
            if isinstance(what, End):
                os._exit(0)
    except EOFError:
        _end_alone(team, interruption)


def _end_alone(team: Team, interruption: "_Interruption") -> NoReturn:
    """The first process is gone without a word."""
    if team.share.rank == 1 and not interruption.came:
        print("roslin: Rank 0 has died; the processes that worked for it end.", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED if interruption.came else EXIT_CODE)


class _Interruption:
    """Ctrl-C and SIGTERM, which reach all processes: what they mean is the first one's to say, once all are at work."""

    def __init__(self) -> None:
        self.came = False

    def ends_this_process(self) -> None:
        """While it loads."""
        self._handle(lambda number, frame: os._exit(INTERRUPTED))

    def is_only_noted(self) -> None:
        """While it works: the first one may want to end its answers first."""
        self._handle(self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True

    @staticmethod
    def _handle(how: Callable[[int, FrameType | None], object]) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, how)
