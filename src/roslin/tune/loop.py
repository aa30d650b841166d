"""The loop: updates over packed rows, evaluations, checkpoints; resumable at any moment, exact when resumed."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from types import FrameType
from typing import Any

import torch

from roslin.errors import InputError
from roslin.model import Decoder
from roslin.tune.flops import flops_a_token, flops_an_answer_token
from roslin.tune.held_out import HeldOutLoss, where_it_broke
from roslin.tune.log import (
    EvaluationLog,
    LogFile,
    UpdateLog,
    memory_gib,
    peak_flops,
)
from roslin.tune.measurements import Measurements
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import make_pack
from roslin.tune.recipe import Recipe
from roslin.tune.schedule import learning_rate
from roslin.tune.setup import Prepared
from roslin.tune.state import Checkpoints, Progress
from roslin.tune.step import accumulate, draw_seed, dropout
from roslin.tune.trackers import Kind, Outcome, TrackedRun, Trackers, dotted, points_of


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM) and has saved where it is."""


class Diverged(InputError):
    """The loss or a gradient is not finite, or the loss has exploded."""


def _nothing(*_: object) -> None:
    """Do nothing: what a callback is when none is given."""


@dataclass(frozen=True)
class Callbacks:
    """What a run tells while it goes on."""

    on_start: Callable[["Progress", int], None] = _nothing
    """Progress at the start (update 0, or a checkpoint's), and the number of updates in all."""
    on_step: Callable[[UpdateLog], None] = _nothing
    on_evaluate: Callable[[EvaluationLog, Decoder], None] = _nothing
    """After each measurement, with the model as it is now, to be used and not changed."""
    on_finish: Callable[["Tuned"], None] = _nothing
    on_warning: Callable[[str], None] = _nothing
    """What went wrong beside the run, which goes on; from any thread."""


@dataclass(frozen=True)
class Tuned:
    """A finished run; the decoder holds the final weights (the best ones, when the recipe has patience).

    They are in fp32, exact, where the base is stored in something finer than the bf16 of the passes.
    """

    decoder: Decoder
    before: HeldOutLoss
    """Of the base, its keys in place, before the first update."""
    held_out: HeldOutLoss
    """Of the final weights."""
    updates: int
    """Updates behind the final weights."""
    updates_in_all: int
    """Updates that the recipe's epochs come to."""
    tokens: int
    seconds: float
    stopped_early: bool


def fit(
    recipe: Recipe,
    prepared: Prepared,
    callbacks: Callbacks | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune `prepared.decoder` by the recipe, from the newest checkpoint in its output folder if there is one.

    `facts` of machine, packages and records are handed on to the recipe's trackers.
    Raises Interrupted (state saved), Diverged (last good checkpoint kept), InputError for a checkpoint of another
    run, MachineError when the disk is full.
    """
    return _Run(recipe, prepared, callbacks or Callbacks(), facts or {}).go()


class _Run:
    def __init__(self, recipe: Recipe, prepared: Prepared, callbacks: Callbacks, facts: Mapping[str, Any]) -> None:
        self.recipe, self.prepared, self.callbacks, self.facts = recipe, prepared, callbacks, facts
        self.decoder = prepared.decoder
        self.course = prepared.course
        self.checkpoints = Checkpoints(recipe.output / "checkpoints", recipe.keep_checkpoints)
        self.before = prepared.held_out.measure(self.decoder)
        self.progress, self.optimizer = self._restore()
        self.peak = peak_flops(self.decoder.device)
        self.flops_a_token = flops_a_token(self.decoder)
        self.flops_an_answer_token = flops_an_answer_token(self.decoder)

    def go(self) -> Tuned:
        keep_until = self.progress.update or -1  # a run that starts anew starts its log anew
        self.log = LogFile(self.recipe.output / "log.jsonl", keep_until=keep_until)
        self.trackers = Trackers.of(self.recipe, self.callbacks.on_warning)
        outcome: Outcome = "failed"
        try:
            self.callbacks.on_start(self.progress, self.course.updates)
            self._start_trackers(keep_until)
            with _stop_requests() as stop_requested:
                self._updates(stop_requested)
            outcome = "finished"
        except Interrupted:
            outcome = "stopped"
            raise
        finally:
            self.log.close()
            self.trackers.close(outcome)
        return self._finish()

    def _start_trackers(self, keep_until: int) -> None:
        run = TrackedRun(
            folder=self.recipe.output,
            settings=dotted(self.recipe.model_dump(mode="json")),
            facts=dotted(self.facts),
            fingerprint=self.prepared.fingerprint,
            goes_on_from=keep_until,
        )
        self.trackers.start(run, (points_of(line["kind"], line) for line in self.log.lines()))

    def _restore(self) -> tuple[Progress, MasterAdamW]:
        recipe = self.recipe
        optimizer = MasterAdamW(
            self.decoder,
            betas=recipe.betas,
            epsilon=recipe.epsilon,
            weight_decay=recipe.weight_decay,
            moments="fp32" if recipe.optimizer.moments == "auto" else recipe.optimizer.moments,
            gradients="fp32" if recipe.optimizer.gradients == "auto" else recipe.optimizer.gradients,
            in_backward=recipe.optimizer.in_backward,
            low=self.prepared.low,
            fast_rows=self.prepared.rows_of_new_keys,
            fast_factor=recipe.new_keys_rate,
            seed=recipe.seed,
        )
        newest = self.checkpoints.newest()
        if newest is None:
            return Progress(fingerprint=self.prepared.fingerprint), optimizer
        progress = self.checkpoints.progress(newest)
        if progress.fingerprint != self.prepared.fingerprint:
            raise InputError(
                f"{recipe.output} holds a run with another recipe, another base or other records. "
                "Give another output=…, or --restart to drop that run."
            )
        self.checkpoints.load(newest, optimizer.weights() | optimizer.state())
        return progress, optimizer

    def _updates(self, stop_requested: threading.Event) -> None:
        if self.progress.update == 0:
            self._take(self.before)
        self.at_start = replace(self.progress)
        for rows in self.course.after(self.progress.update):
            if self.progress.stopped_early:
                return
            self._update(rows)
            if self._is_due(self.recipe.evaluate_every):
                self._take(self.prepared.held_out.measure(self.decoder))
            stop = stop_requested.is_set()
            if stop or self.progress.stopped_early or self._is_due(self.recipe.checkpoint_every):
                self._save()
            if stop:
                raise Interrupted

    def _is_due(self, every: int) -> bool:
        return self.progress.update % every == 0 or self.progress.update == self.course.updates

    def _update(self, rows: list[list[int]]) -> None:
        progress, recipe = self.progress, self.recipe
        started = time.monotonic()
        packs = [make_pack([self.prepared.examples[i] for i in row]) for row in rows]
        rate = learning_rate(
            progress.update + 1,
            peak=recipe.learning_rate,
            schedule=recipe.schedule,
            warmup=self.course.warmup,
            total=self.course.updates,
        )
        if recipe.optimizer.in_backward:
            self.optimizer.begin(rate)
        with dropout(self.decoder, draw_seed(recipe.seed, progress.update + 1)):
            loss = accumulate(self.decoder, packs)
        self._stop_if_diverged(loss, lambda: where_it_broke(self.decoder, packs))
        norm = self.optimizer.update(rate, recipe.clip_norm)
        if not math.isfinite(norm):
            self._diverged("a gradient is not finite")
        progress.update += 1
        tokens = sum(pack.token_count for pack in packs)
        progress.tokens += tokens
        progress.answer_tokens += sum(pack.answer_count for pack in packs)
        progress.seconds += time.monotonic() - started
        self._report(loss, rate, norm, sum(map(len, rows)), tokens)

    def _stop_if_diverged(self, loss: float, where: Callable[[], str]) -> None:
        if not math.isfinite(loss):
            self._diverged(f"the loss is {loss}; numbers stop being numbers {where()}")
        if loss > self.recipe.explosion * self.before.loss:
            self._diverged(f"the loss rose to {loss:.2f}; the base's held-out loss is {self.before.loss:.2f}")

    def _diverged(self, what: str) -> None:
        self.checkpoints.drop(self.progress.update)  # the very weights that were just found bad, had they been saved
        newest = self.checkpoints.newest()
        kept = f"The last good state is {newest}." if newest else "No good checkpoint had been written yet."
        raise Diverged(
            f"Stopped after update {self.progress.update}: {what}. {kept} A lower learning_rate (now "
            f"{self.recipe.learning_rate:g}) or a longer warmup_updates usually mends it; start over with --restart."
        )

    def _report(self, loss: float, rate: float, norm: float, records: int, tokens: int) -> None:
        progress, seconds = self.progress, self.progress.seconds - self.at_start.seconds
        log = UpdateLog(
            update=progress.update,
            updates=self.course.updates,
            epoch=progress.update / self.course.updates * self.recipe.epochs,
            loss=loss,
            held_out=progress.held_out or math.nan,
            learning_rate=rate,
            grad_norm=norm,
            records=records,
            tokens=tokens,
            tokens_per_second=(progress.tokens - self.at_start.tokens) / seconds,
            mfu=self._flops() / seconds / self.peak if self.peak else None,
            memory_gib=memory_gib(self.decoder.device),
            seconds_left=progress.seconds / progress.update * (self.course.updates - progress.update),
        )
        self._write("update", asdict(log))
        self.callbacks.on_step(log)

    def _flops(self) -> float:
        """Of the matrix products since the start."""
        tokens = self.progress.tokens - self.at_start.tokens
        answers = self.progress.answer_tokens - self.at_start.answer_tokens
        return self.flops_a_token * tokens + self.flops_an_answer_token * answers

    def _take(self, held_out: HeldOutLoss) -> None:
        """Note a measurement of the weights as they are now."""
        progress = self.progress
        self._stop_if_diverged(held_out.loss, lambda: self.prepared.held_out.where_it_broke(self.decoder))
        progress.held_out = held_out.loss
        best = progress.best_held_out is None or held_out.loss < progress.best_held_out
        if best:
            progress.best_held_out, progress.best_update = held_out.loss, progress.update
            progress.evaluations_since_best = 0
        else:
            progress.evaluations_since_best += 1
        if self.recipe.patience is not None:
            if best:
                self.checkpoints.save_best(self.optimizer.masters(), progress.update)
            progress.stopped_early = progress.evaluations_since_best >= self.recipe.patience
        log = EvaluationLog(progress.update, held_out, best)
        self._write("evaluation", log.summary())
        self._write_measurements(held_out, progress.update)
        self.callbacks.on_evaluate(log, self.decoder)

    def _write(self, kind: Kind, values: dict[str, Any]) -> None:
        self.log.write(kind, values)
        self.trackers.add(kind, values)

    def _write_measurements(self, held_out: HeldOutLoss, update: int) -> None:
        Measurements(self.prepared.held_out.digest, update, self.before, held_out).write(self.recipe.output)

    def _save(self) -> None:
        self.checkpoints.save(self.progress, self.optimizer.weights() | self.optimizer.state())

    def _finish(self) -> Tuned:
        progress = self.progress
        if self.recipe.patience is not None and progress.best_update != progress.update:
            self.checkpoints.load_best(self.optimizer.masters(), progress.best_update)
        tuned = Tuned(
            decoder=self.decoder,
            before=self.before,
            held_out=self.prepared.held_out.measure(self.decoder),
            updates=progress.best_update if self.recipe.patience is not None else progress.update,
            updates_in_all=self.course.updates,
            tokens=progress.tokens,
            seconds=progress.seconds,
            stopped_early=progress.stopped_early,
        )
        self._write_measurements(tuned.held_out, tuned.updates)
        if self.decoder.dtype == torch.bfloat16 != self.prepared.stored_dtype:
            self.optimizer.become_exact()  # the model is written in a finer dtype than passes had
        self.callbacks.on_finish(tuned)
        return tuned


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second stops at once. Never set outside the main thread."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if requested.is_set():
            raise KeyboardInterrupt
        requested.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
