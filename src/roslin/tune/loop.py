"""The loop: updates over packed rows, evaluations, checkpoints; resumable at any moment, exact when resumed."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from roslin.errors import InputError
from roslin.model import Decoder
from roslin.model.grad_mode import enable_grad
from roslin.tune.adamw.shards import as_parts, part_of
from roslin.tune.ahead import made_ahead
from roslin.tune.base import is_rounded
from roslin.tune.dealing import deal, padded
from roslin.tune.flops import flops_a_token, flops_an_answer_token
from roslin.tune.held_out import HeldOutLoss, where_it_broke
from roslin.tune.log import EvaluationLog, UpdateLog, memory_gib, peak_flops
from roslin.tune.loss_scale import LossScale
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import Pack, join_rows, make_pack
from roslin.tune.recipe import Recipe
from roslin.tune.reports import Callbacks, Reports, Tuned
from roslin.tune.schedule import learning_rate
from roslin.tune.setup import Prepared, choose_device
from roslin.tune.state import Checkpoints, Progress
from roslin.tune.step import accumulate, draw_seed, dropout
from roslin.tune.stopping import Interrupted, stop_requests

if TYPE_CHECKING:
    from roslin.tune.trackers import Outcome


class Diverged(InputError):
    """The loss or a gradient is not finite, or the loss has exploded."""


@enable_grad
def fit(
    recipe: Recipe,
    prepared: Prepared,
    callbacks: Callbacks | None = None,
    *,
    facts: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune `prepared.decoder` by the recipe, from the newest checkpoint in its output folder if there is one.

    `facts` of machine, packages and records are handed on to the recipe's trackers. Where `prepared` is one of many
    processes, all of them call this. Raises Interrupted (state saved), Diverged (last good checkpoint kept), InputError
    for a checkpoint of another run, MachineError when the disk is full.
    """
    return _Run(recipe, prepared, callbacks or Callbacks(), facts or {}).go()


class _Run:
    def __init__(self, recipe: Recipe, prepared: Prepared, callbacks: Callbacks, facts: Mapping[str, Any]) -> None:
        self.recipe, self.prepared = recipe, prepared
        self.decoder, self.processes = prepared.decoder, prepared.processes
        self.course = prepared.course
        self.lengths = [len(example.ids) for example in prepared.examples]
        self.device = choose_device(recipe)
        self.checkpoints = Checkpoints(recipe.output / "checkpoints", recipe.keep_checkpoints, self.processes)
        self.before = self._measured()
        self.progress, self.optimizer = self._restore()
        self.loss_scale = LossScale(self.decoder.dtype, self.progress)
        self.peak = peak_flops(self.device)
        self.flops_a_token = flops_a_token(self.decoder)
        self.flops_an_answer_token = flops_an_answer_token(self.decoder)
        # A run that starts anew starts its log anew.
        told = (recipe, prepared, callbacks, facts, self.progress.update or -1)
        self.reports = Reports(*told) if self.processes.is_first else None

    def go(self) -> Tuned:
        outcome: Outcome = "failed"
        try:
            if self.reports:
                self.reports.start(self.progress, self.course.updates)
            with stop_requests(echoes=self.processes.count > 1) as stop_requested:
                self._updates(stop_requested)
            outcome = "finished"
        except Interrupted:
            outcome = "stopped"
            raise
        finally:
            if self.reports:
                self.reports.close(outcome)
        return self._finish()

    def _restore(self) -> tuple[Progress, MasterAdamW]:
        recipe = self.recipe
        optimizer = MasterAdamW(
            self.decoder,
            betas=recipe.betas,
            epsilon=recipe.epsilon,
            weight_decay=recipe.weight_decay,
            moments=self.prepared.plan.moments,
            gradients=self.prepared.plan.gradients,
            in_backward=self.prepared.plan.in_backward,
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
        self.checkpoints.load(newest, as_parts(optimizer.parameters, optimizer.weights() | optimizer.state()))
        return progress, optimizer

    def _updates(self, stop_requested: threading.Event) -> None:
        if self.progress.update == 0:
            self._take(self.before)
        self.at_start = replace(self.progress)
        for rows, packs in made_ahead(self.course.after(self.progress.update), self._passes):
            if self.progress.stopped_early:
                return
            self._update(rows, packs)
            if self._is_due(self.recipe.evaluate_every):
                self._take(self._measured())
            stop = self.processes.any(stop_requested.is_set())
            if stop or self.progress.stopped_early or self._is_due(self.recipe.checkpoint_every):
                self._save()
            if stop:
                raise Interrupted

    def _is_due(self, every: int) -> bool:
        return self.progress.update % every == 0 or self.progress.update == self.course.updates

    def _update(self, rows: list[list[int]], packs: list[Pack]) -> None:
        progress, recipe = self.progress, self.recipe
        started = time.monotonic()
        examples = [self.prepared.examples[i] for row in rows for i in row]
        answers = sum(example.answer_count for example in examples)
        rate = learning_rate(
            progress.update + 1,
            peak=recipe.learning_rate,
            schedule=recipe.schedule,
            warmup=self.course.warmup,
            total=self.course.updates,
        )
        loss, norm = self._step(packs, answers, rate)
        while math.isfinite(loss) and not math.isfinite(norm) and self.loss_scale.lower():
            loss, norm = self._step(packs, answers, rate)
        self._stop_if_diverged(loss, lambda: where_it_broke(self.decoder, packs, self.processes))
        if not math.isfinite(norm):
            self._diverged("a gradient is not finite")
        progress.update += 1
        tokens = sum(len(example.ids) for example in examples)
        progress.tokens += tokens
        progress.answer_tokens += answers
        progress.seconds += time.monotonic() - started
        self._report(loss, rate, norm, len(examples), tokens)
        self.loss_scale.held()

    def _step(self, packs: list[Pack], answers: int, rate: float) -> tuple[float, float]:
        """Make an update of its passes: its loss, and its gradients' norm, which if not finite has changed nothing."""
        recipe, scale = self.recipe, self.loss_scale.value
        if self.prepared.plan.in_backward:
            self.optimizer.begin(rate)
        with dropout(self.decoder, draw_seed(recipe.seed, self.progress.update + 1, self.processes.rank)):
            part = accumulate(self.decoder, packs, answers, scale)
        # Read after the update is on its way, so that the device waits for nothing.
        norm = self.optimizer.update(rate, recipe.clip_norm, scale)
        return self.processes.total(float(part)), norm

    def _passes(self, rows: list[list[int]]) -> list[Pack]:
        """This process's passes of an update, as many as every other's."""
        passes = [self._joined(part) for part in deal(rows, self.lengths, self.processes.count)]
        packs = [make_pack([self.prepared.examples[i] for i in row]) for row in passes[self.processes.rank]]
        return padded(packs, max(map(len, passes)))

    def _joined(self, rows: list[list[int]]) -> list[list[int]]:
        plan = self.prepared.plan
        if plan.tokens_per_pass <= self.recipe.row_length and not plan.settings.one_pass:
            return rows
        return join_rows(rows, self.lengths, plan.tokens_per_pass)

    def _measured(self) -> HeldOutLoss:
        return self.prepared.held_out.measure(self.decoder, self.processes)

    def _stop_if_diverged(self, loss: float, where: Callable[[], str]) -> None:
        if not math.isfinite(loss):
            self._diverged(f"the loss is {loss}; numbers stop being numbers {where()}")
        if loss > self.recipe.explosion * self.before.loss:
            self._diverged(f"the loss rose to {loss:.2f}; the base's held-out loss is {self.before.loss:.2f}")

    def _diverged(self, what: str) -> None:
        self.checkpoints.drop(self.progress.update)  # the very weights that were just found bad, had they been saved
        newest = self.checkpoints.newest()
        kept = f"The last good state is {newest}." if newest else "No good checkpoint had been written yet."
        narrow = "fp16 ends at 65,504, and precision=fp32 does not. " if self.decoder.dtype == torch.float16 else ""
        raise Diverged(
            f"Stopped after update {self.progress.update}: {what}. {kept} {narrow}A lower learning_rate (now "
            f"{self.recipe.learning_rate:g}) or a longer warmup_updates usually mends it; start over with --restart."
        )

    def _report(self, loss: float, rate: float, norm: float, records: int, tokens: int) -> None:
        if self.reports is None:
            return
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
            mfu=self._flops() / seconds / self.peak / self.processes.count if self.peak else None,
            memory_gib=memory_gib(self.device),
            seconds_left=progress.seconds / progress.update * (self.course.updates - progress.update),
            loss_scale=self.loss_scale.value if self.decoder.dtype == torch.float16 else None,
        )
        self.reports.update(log)

    def _flops(self) -> float:
        """Of the matrix products since the start."""
        tokens = self.progress.tokens - self.at_start.tokens
        answers = self.progress.answer_tokens - self.at_start.answer_tokens
        return self.flops_a_token * tokens + self.flops_an_answer_token * answers

    def _take(self, held_out: HeldOutLoss) -> None:
        """Note a measurement of the weights as they are now."""
        progress = self.progress
        broken = self.prepared.held_out.where_it_broke
        self._stop_if_diverged(held_out.loss, lambda: broken(self.decoder, self.processes))
        progress.held_out = held_out.loss
        best = progress.best_held_out is None or held_out.loss < progress.best_held_out
        if best:
            progress.best_held_out, progress.best_update = held_out.loss, progress.update
            progress.evaluations_since_best = 0
        else:
            progress.evaluations_since_best += 1
        if self.recipe.patience is not None:
            if best:
                self.checkpoints.save_best(self._exact(), progress.update)
            progress.stopped_early = progress.evaluations_since_best >= self.recipe.patience
        samples_are_due = self.recipe.sample_every and progress.update % self.recipe.sample_every == 0
        decoder = self._whole() if samples_are_due else self.decoder
        if self.reports:
            self.reports.evaluation(EvaluationLog(progress.update, held_out, best), self.before, decoder)

    def _save(self) -> None:
        tensors = self.optimizer.weights() | self.optimizer.state()
        self.checkpoints.save(self.progress, as_parts(self.optimizer.parameters, tensors))

    def _exact(self) -> dict[str, torch.Tensor]:
        """All that is behind the weights as they are, and nothing of how they go on."""
        return as_parts(self.optimizer.parameters, self.optimizer.masters())

    def _whole(self, *, exact: bool = False) -> Decoder:
        """The decoder as one process can use it, on request in fp32; the other processes keep their shards."""
        optimizer = self.optimizer
        if not self.processes.share_a_model:
            if exact:
                optimizer.become_exact()
            return self.decoder
        from roslin.tune.sharding import gathered

        def part(name: str) -> torch.Tensor:
            parameter = optimizer.parameters[name]
            return part_of(parameter, optimizer.master(name)) if exact else parameter.detach()

        return gathered(self.decoder, part, keep=self.processes.is_first) or self.decoder

    def _finish(self) -> Tuned:
        progress = self.progress
        if self.recipe.patience is not None and progress.best_update != progress.update:
            self.checkpoints.load_best(self._exact(), progress.best_update)
        held_out = self._measured()
        # The model is written in a finer dtype than its passes had.
        is_finer = is_rounded(self.prepared.stored_dtype, self.decoder.dtype)
        tuned = Tuned(
            decoder=self._whole(exact=is_finer),
            before=self.before,
            held_out=held_out,
            updates=progress.best_update if self.recipe.patience is not None else progress.update,
            updates_in_all=self.course.updates,
            tokens=progress.tokens,
            seconds=progress.seconds,
            stopped_early=progress.stopped_early,
        )
        if self.reports:
            self.reports.finish(tuned)
        return tuned
