"""Runs in fp16: losses scaled as its range needs, and no record passed over where gradients overflow all the same."""

import json
import math
import os
import signal
from functools import partial
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from roslin.errors import InputError
from roslin.tune import Callbacks, Diverged, Interrupted, Recipe, UpdateLog, fit, loop, loss_scale, prepare
from roslin.tune.loss_scale import LEAST, STEADY, LossScale
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.state import Progress
from run_recipes import changed
from tiny import tiny_gptj, tiny_llama

SHORT = {"epochs": 0.3, "records_per_update": 3, "held_out": {"fraction": 0.05}}


@pytest.fixture
def in_fp16(recipe: Recipe) -> Recipe:
    """A shorter one, for a CPU's products in fp16 take a hundred times as long."""
    return changed(recipe, precision="fp16", output=recipe.output.with_name("fp16"), **SHORT)


def run(recipe: Recipe) -> tuple[list[UpdateLog], float]:
    """What was logged, and the held-out loss at the end."""
    steps: list[UpdateLog] = []
    tuned = fit(recipe, prepare(recipe), Callbacks(on_step=steps.append))
    return steps, tuned.held_out.loss


def test_passes_learn_as_those_in_fp32_do(recipe: Recipe, in_fp16: Recipe) -> None:
    plain, expected = run(changed(recipe, **SHORT))
    steps, found = run(in_fp16)
    assert found == pytest.approx(expected, rel=2e-3)
    for ours, its in zip(steps, plain, strict=True):
        assert ours.loss == pytest.approx(its.loss, rel=2e-3)
        assert ours.grad_norm == pytest.approx(its.grad_norm, rel=2e-2)
        assert its.loss_scale is None
    scales = [log.loss_scale for log in steps]
    assert all(2.0**8 < scale <= 2.0**16 for scale in scales if scale)
    assert f"loss × {scales[0]:,.0f}" in steps[0].line()
    assert "loss ×" not in plain[0].line()


@pytest.mark.full
@pytest.mark.parametrize("maker", [tiny_gptj, tiny_llama])
def test_other_families(recipe: Recipe, in_fp16: Recipe, tmp_path: Any, base_folder: Any, maker: Any) -> None:
    maker(tmp_path / "other", vocab_size=8192, tokenizer=base_folder)
    plain, half = (changed(each, model=str(tmp_path / "other"), **SHORT) for each in (recipe, in_fp16))
    assert run(half)[1] == pytest.approx(run(plain)[1], rel=2e-3)


def test_an_adapter_beside_weights_in_fp16(in_fp16: Recipe) -> None:
    adapter = changed(in_fp16, adapter={}, learning_rate=5e-2)
    steps, held_out = run(adapter)
    assert held_out < steps[0].held_out - 0.1


def test_without_a_scale_gradients_would_vanish(in_fp16: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scale is for: at a 2^26th of what is usual here, many gradients are zero that are not in fp32."""
    zeros = []
    for scale in (2.0**12, 2.0**-14):
        monkeypatch.setattr(loop, "Progress", partial(Progress, loss_scale=scale))
        found: list[int] = []

        def count(self: MasterAdamW, *told: float, found: list[int] = found, update: Any = MasterAdamW.update) -> float:
            found.append(sum(int((total == 0).sum()) for name, total in self.sums.items() if "blocks" in name))
            return float(update(self, *told))

        with monkeypatch.context() as patched:
            patched.setattr(MasterAdamW, "update", count)
            run(changed(in_fp16, epochs=0.2, warmup_updates=1, output=in_fp16.output.with_name(f"at-{scale}")))
        zeros.append(found[0])
    assert zeros[1] > 2 * zeros[0] + 100


def test_an_update_that_overflows_is_made_again(in_fp16: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """With half the scale, as often as it takes; every record is learned from, as if nothing had been."""
    usual, expected = run(in_fp16)
    monkeypatch.setattr(loop, "Progress", partial(Progress, loss_scale=2.0**28))
    made: list[float] = []
    update = MasterAdamW.update

    def noted(self: MasterAdamW, *told: Any) -> float:
        made.append(update(self, *told))
        return made[-1]

    monkeypatch.setattr(MasterAdamW, "update", noted)
    steps, found = run(changed(in_fp16, output=in_fp16.output.with_name("high")))
    overflows = sum(not math.isfinite(norm) for norm in made)
    assert overflows >= 3
    assert len(made) == len(steps) + overflows
    assert steps[-1].loss_scale == 2.0 ** (28 - overflows)
    assert [log.records for log in steps] == [log.records for log in usual]
    assert [log.learning_rate for log in steps] == [log.learning_rate for log in usual]
    assert found == pytest.approx(expected, rel=2e-3)


def test_gradients_that_are_never_finite_stop_the_run(in_fp16: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[float] = []

    def broken(self: MasterAdamW, rate: float, clip_norm: float | None, scale: float) -> float:
        made.append(scale)
        return math.inf

    monkeypatch.setattr(MasterAdamW, "update", broken)
    with pytest.raises(Diverged, match=r"a gradient is not finite.* and precision=fp32 does not\."):
        run(in_fp16)
    assert made == [2.0**n for n in range(16, -1, -1)]


def test_an_update_is_logged_with_the_scale_that_it_had(in_fp16: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_scale, "STEADY", 2)
    monkeypatch.setattr(loop, "Progress", partial(Progress, loss_scale=2.0**6))
    steps, _ = run(in_fp16)
    assert [log.loss_scale for log in steps] == [2.0 ** (6 + done // 2) for done in range(len(steps))]


def test_the_scale_goes_on_where_a_run_was_stopped(in_fp16: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run does not begin with the usual one anew."""
    cut = changed(in_fp16, output=in_fp16.output.with_name("cut"))

    def interrupt(log: UpdateLog) -> None:
        if log.update == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "Progress", partial(Progress, loss_scale=2.0**28))
        whole, expected = run(in_fp16)
        with pytest.raises(Interrupted):
            fit(cut, prepare(cut), Callbacks(on_step=interrupt))
    rest, found = run(cut)
    assert [log.loss_scale for log in rest] == [log.loss_scale for log in whole[3:]]
    assert [log.loss for log in rest] == [log.loss for log in whole[3:]]
    assert found == expected


def test_a_scale_is_raised_after_many_updates_and_never_below_one() -> None:
    progress = Progress(loss_scale=4.0)
    scale = LossScale(torch.float16, progress)
    assert [scale.lower() for _ in range(4)] == [True, True, False, False]
    assert scale.value == LEAST == 1.0
    for _ in range(2 * STEADY - 1):
        scale.held()
    assert scale.value == 2.0
    scale.held()
    assert (scale.value, progress.updates_at_scale) == (4.0, 0)
    scale.held()
    assert scale.lower()
    assert (scale.value, progress.updates_at_scale) == (2.0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_passes_are_not_scaled(dtype: torch.dtype) -> None:
    scale = LossScale(dtype, Progress())
    assert scale.value == 1.0
    assert not scale.lower()
    for _ in range(2 * STEADY):
        scale.held()
    assert scale.value == 1.0


@pytest.mark.parametrize("settings", [{}, {"adapter": {}}, {"adapter": {"quantize": "nf4"}}])
def test_weights_beyond_fp16_are_refused_by_name(
    in_fp16: Recipe, tiny_base: Any, tmp_path: Any, settings: dict[str, Any]
) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    for path in tiny_base.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.dense_h_to_4h.weight"))
    weights[name][3, 5] = -70_000
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    large = changed(in_fp16, model=str(folder), **settings)
    with pytest.raises(InputError, match=r"blocks.1.up.weight has weights of up to 70,000, and fp16 ends at 65,504"):
        prepare(large)


def test_updates_in_the_backward_pass_exclude_it(recipe: Recipe) -> None:
    values = json.loads(recipe.model_dump_json(exclude_defaults=True))
    with pytest.raises(InputError, match=r"optimizer.in_backward: excludes precision fp16"):
        Recipe.parse(values | {"precision": "fp16", "optimizer": {"in_backward": True}, "clip_norm": None})
