"""Whole runs on a tiny model: exact packing and accumulation, exact resume, and stops that keep the last good state."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from roslin.errors import InputError, MachineError
from roslin.model import Decoder, PackedAttention, packed_positions
from roslin.tokens import Example
from roslin.tune import (
    Callbacks,
    Diverged,
    EvaluationLog,
    Interrupted,
    Recipe,
    UpdateLog,
    fit,
    precision,
    prepare,
)
from roslin.tune import state as state_module
from roslin.tune.held_out import pack_nll
from roslin.tune.packing import make_pack
from roslin.tune.schedule import learning_rate
from roslin.tune.step import accumulate
from run_recipes import changed

NUMBERS = ("update", "loss", "held_out", "learning_rate", "grad_norm", "records", "tokens")
"""What must be the same bit for bit in a resumed run; speeds and times need not."""


def curve(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: line.get(k) for k in (*NUMBERS, "kind", "by_category")} for line in lines]


def one_by_one(decoder: Decoder, example: Example) -> torch.Tensor:
    """The plain way: one record, all its logits, torch's cross-entropy on the answer."""
    ids = torch.tensor(example.ids)
    length = len(ids)
    logits = decoder(ids, packed_positions([length]), PackedAttention([length]))
    return F.cross_entropy(logits[example.answer_start - 1 : -1], ids[example.answer_start :], reduction="sum")


def test_a_packed_batch_is_its_records_one_by_one(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    examples = prepared.examples[:9]
    pack = make_pack(examples)
    singly = torch.stack([one_by_one(prepared.decoder, example) for example in examples])
    packed = pack_nll(prepared.decoder, pack)
    torch.testing.assert_close(packed.sum() / pack.answer_count, singly.sum() / pack.answer_count, rtol=1e-5, atol=1e-6)
    parts = packed.split([example.answer_count for example in examples])
    torch.testing.assert_close(torch.stack([part.sum() for part in parts]), singly, rtol=1e-5, atol=1e-5)


def test_what_stands_beside_a_record_does_not_change_its_loss(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    first, second, third = prepared.examples[:3]
    beside_one = pack_nll(prepared.decoder, make_pack([second, first]))[-first.answer_count :]
    beside_other = pack_nll(prepared.decoder, make_pack([third, second, first]))[-first.answer_count :]
    torch.testing.assert_close(beside_one, beside_other, rtol=1e-5, atol=1e-6)


def test_gradients_do_not_depend_on_how_an_update_is_cut_into_rows(recipe: Recipe) -> None:
    """And they are those of the mean over all answer tokens of the update, as plain torch has it."""
    prepared = prepare(recipe)
    decoder, examples = prepared.decoder, prepared.examples[:8]

    def gradients(rows: list[list[Example]] | None) -> tuple[float, list[torch.Tensor]]:
        decoder.zero_grad()
        if rows is None:
            whole = sum(one_by_one(decoder, e) for e in examples) / sum(e.answer_count for e in examples)
            whole.backward()
            return float(whole.detach()), [p.grad.clone() for p in decoder.parameters()]
        loss = accumulate(decoder, [make_pack(row) for row in rows])
        return loss, [p.grad.clone() for p in decoder.parameters()]

    plain, expected = gradients(None)
    for rows in ([examples], [examples[:1], examples[1:5], examples[5:]]):
        loss, found = gradients(rows)
        assert loss == pytest.approx(plain, rel=1e-5)
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_the_row_length_changes_rows_and_not_the_total_learned_from(recipe: Recipe) -> None:
    """Row length decides passes; every record is still seen once an epoch, and the loss ends up alike."""
    ends = []
    for row_length in (128, 512):
        cut = changed(recipe, row_length=row_length, output=recipe.output.with_name(f"rows-{row_length}"))
        records: list[int] = []
        tuned = fit(cut, prepare(cut), Callbacks(on_step=lambda log, seen=records: seen.append(log.records)))
        assert sum(records) == 3 * len(prepare(cut).examples)
        ends.append(tuned.held_out.loss)
    assert ends[0] == pytest.approx(ends[1], rel=0.03)


def test_tuning_learns_and_logs(recipe: Recipe) -> None:
    steps: list[UpdateLog] = []
    evaluations: list[EvaluationLog] = []
    tuned = fit(
        recipe,
        prepare(recipe),
        Callbacks(on_step=steps.append, on_evaluate=lambda log, decoder: evaluations.append(log)),
    )
    assert tuned.held_out.loss < tuned.before.loss - 0.5
    assert [s.update for s in steps] == list(range(1, tuned.updates_in_all + 1))
    assert evaluations[0].update == 0
    assert set(evaluations[-1].held_out.by_category()) == {"open_qa", "summarization"}
    # The newest evaluation when the last update was logged is the one before the last.
    assert steps[-1].held_out == evaluations[-2].held_out.loss
    assert [line["update"] for line in curve(recipe.output) if line["kind"] == "update"] == [s.update for s in steps]
    line = steps[-1].line()
    for part in ("update", "loss", "held-out", "lr", "|g|", "tokens/s", "GiB", "left"):
        assert part in line


@pytest.mark.full
def test_bf16_passes_learn_as_well(recipe: Recipe) -> None:
    plain = fit(recipe, prepare(recipe))
    half = changed(recipe, precision="bf16", output=recipe.output.with_name("half"))
    assert fit(half, prepare(half)).held_out.loss == pytest.approx(plain.held_out.loss, rel=0.02)


def test_patience_keeps_the_best_weights(recipe: Recipe) -> None:
    greedy = changed(recipe, learning_rate=2e-2, epochs=12, patience=2, evaluate_every=3, explosion=100)
    seen: list[EvaluationLog] = []
    tuned = fit(greedy, prepare(greedy), Callbacks(on_evaluate=lambda log, decoder: seen.append(log)))
    best = min(seen, key=lambda log: log.held_out.loss)
    assert tuned.stopped_early
    assert tuned.updates == best.update < tuned.updates_in_all
    assert tuned.held_out.loss == pytest.approx(best.held_out.loss, rel=1e-6)
    assert [log.best for log in seen[-2:]] == [False, False]


@pytest.mark.parametrize("passes", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.full)])
@pytest.mark.parametrize("stop_after", [3, 7])
def test_interrupted_and_resumed_is_bitwise_the_same(recipe: Recipe, passes: str, stop_after: int) -> None:
    whole = changed(recipe, precision=passes, output=recipe.output.with_name("whole"), patience=50)
    fit(whole, prepare(whole))
    cut = changed(recipe, precision=passes, patience=50)

    def interrupt(log: UpdateLog) -> None:
        if log.update == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(cut, prepare(cut), Callbacks(on_step=interrupt))
    assert curve(cut.output)[-1]["update"] == stop_after
    resumed = fit(cut, prepare(cut))
    assert curve(cut.output) == curve(whole.output)
    again = fit(whole, prepare(whole))  # a finished run only loads its end
    for a, b in zip(resumed.decoder.parameters(), again.decoder.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.full
def test_early_stopping_is_the_same_over_a_resume(recipe: Recipe) -> None:
    """The rise of the held-out loss, the best weights and the stop survive an interruption between them."""
    greedy = {"learning_rate": 2e-2, "epochs": 12, "patience": 2, "evaluate_every": 3, "explosion": 100}
    whole = changed(recipe, **greedy, output=recipe.output.with_name("whole"))
    expected = fit(whole, prepare(whole))
    assert expected.stopped_early
    end = curve(whole.output)[-1]["update"]
    for stop_after in (expected.updates + 1, end - 1):
        cut = changed(recipe, **greedy, output=recipe.output.with_name(f"cut-{stop_after}"))

        def interrupt(log: UpdateLog, at: int = stop_after) -> None:
            if log.update == at:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted):
            fit(cut, prepare(cut), Callbacks(on_step=interrupt))
        resumed = fit(cut, prepare(cut))
        assert curve(cut.output) == curve(whole.output)
        assert resumed.updates == expected.updates
        for a, b in zip(resumed.decoder.parameters(), expected.decoder.parameters(), strict=True):
            assert torch.equal(a, b)


RUN = """
import sys
from pathlib import Path
from roslin.tune import Recipe, fit, prepare, Callbacks
recipe = Recipe.load(Path(sys.argv[1]))
fit(recipe, prepare(recipe), Callbacks(on_step=lambda log: print(log.update, flush=True)))
"""


def start(recipe_file: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(recipe_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.full
def test_killed_at_any_moment_it_resumes_bitwise(recipe: Recipe, tmp_path: Path) -> None:
    """kill -9, three times, at moments that fall into updates, evaluations and checkpoint writes."""
    files = {}
    for name in ("whole", "killed"):
        values = recipe.model_dump(mode="json") | {"output": str(tmp_path / name), "checkpoint_every": 2}
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    whole = start(files["whole"])
    assert whole.wait(timeout=120) == 0, whole.stderr.read() if whole.stderr else ""
    for updates, pause in ((2, 0.0), (5, 0.01), (9, 0.02)):
        process = start(files["killed"])
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= updates:
                break
        time.sleep(pause)
        process.kill()
        process.wait()
    last = start(files["killed"])
    assert last.wait(timeout=120) == 0, last.stderr.read() if last.stderr else ""
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_a_checkpoint_of_another_run_is_refused(recipe: Recipe) -> None:
    fit(recipe, prepare(recipe))
    other = changed(recipe, learning_rate=5e-4)
    with pytest.raises(InputError, match="another recipe"):
        fit(other, prepare(other))


def rolled(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if name.endswith("dense_4h_to_h.weight"))
    weights[name] = weights[name].roll(1, 0)  # the same numbers in another order


def reversed_bias(weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if name.endswith("input_layernorm.bias"))
    weights[name] = torch.arange(float(len(weights[name])))  # what the fixture below has turned round


@pytest.fixture
def own_base(tiny_base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "own-base"
    shutil.copytree(tiny_base, folder)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("input_layernorm.bias"))
    weights[name] = torch.arange(float(len(weights[name]))).flip(0)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("change", [rolled, reversed_bias, "config"])
def test_a_base_that_changed_under_its_name_is_another_run(recipe: Recipe, own_base: Path, change: Any) -> None:
    """And one that only moved is not."""
    short = changed(recipe, model=str(own_base), epochs=0.3, warmup_updates=1, checkpoint_every=1)
    fit(short, prepare(short))
    moved = own_base.with_name("moved")
    own_base.rename(moved)
    again = changed(short, model=str(moved))
    fit(again, prepare(again))
    if change == "config":
        path = moved / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"layer_norm_eps": 1e-3}))
    else:
        weights = load_file(moved / "model.safetensors")
        change(weights)
        save_file(weights, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="another base"):
        fit(again, prepare(again))


def test_a_machine_that_would_choose_another_precision_does_not_go_on(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = changed(recipe, precision="auto", epochs=0.3, warmup_updates=1, checkpoint_every=1)
    for native in (False, True):
        monkeypatch.setattr(precision, "_has_bf16", lambda _, native=native: native)
        prepared = prepare(short)
        assert prepared.decoder.dtype == (torch.bfloat16 if native else torch.float32)
        if native:
            with pytest.raises(InputError, match="another recipe"):
                fit(short, prepared)
        else:
            fit(short, prepared)


@pytest.mark.parametrize(("rate", "warmup"), [(20.0, 0), (1.4, 21)])
def test_an_exploding_loss_stops_and_keeps_the_last_good_state(recipe: Recipe, rate: float, warmup: int) -> None:
    """From the first update on; and what is kept is no state that the loss has just condemned."""
    wild = changed(recipe, learning_rate=rate, warmup_updates=warmup, clip_norm=None, checkpoint_every=1)
    with pytest.raises(Diverged, match=r"Stopped after update \d+: .*learning_rate"):
        fit(wild, prepare(wild))
    checkpoints = state_module.Checkpoints(wild.output / "checkpoints", 2)
    newest = checkpoints.newest()
    if newest is None:
        assert warmup == 0
        return
    prepared = prepare(wild)
    checkpoints.load(newest, dict(prepared.decoder.named_parameters()))
    assert (
        prepared.held_out.measure(prepared.decoder).loss
        < 2.5 * prepare(wild).held_out.measure(prepare(wild).decoder).loss
    )


def test_the_recipe_is_followed(recipe: Recipe) -> None:
    """Partial epochs, schedule, clipping, kept checkpoints and weight decay reach the updates."""
    steps: list[UpdateLog] = []
    half = changed(recipe, epochs=1.5, schedule="cosine", keep_checkpoints=1, checkpoint_every=3)
    tuned = fit(half, prepare(half), Callbacks(on_step=steps.append))
    whole = len(prepare(half).examples) / recipe.records_per_update
    assert tuned.updates_in_all == pytest.approx(1.5 * whole, abs=1.5)
    expected = [
        learning_rate(n, peak=1e-3, schedule="cosine", warmup=3, total=len(steps)) for n in range(1, len(steps) + 1)
    ]
    assert [s.learning_rate for s in steps] == expected
    assert len(list((half.output / "checkpoints").glob("update-*"))) == 1
    for name, values in {
        "clip": {"clip_norm": 1e-4},
        "decay": {"weight_decay": 5.0},
        "keys": {"new_keys_rate": 9},
    }.items():
        other = changed(half, output=recipe.output.with_name(name), **values)
        assert fit(other, prepare(other)).held_out.loss != tuned.held_out.loss, name


def test_nan_weights_stop_at_once(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    with torch.no_grad():
        prepared.decoder.norm.weight[0] = float("nan")
    with pytest.raises(Diverged, match="the loss is nan; numbers stop being numbers in what layer 2 wrote"):
        fit(recipe, prepared)


def test_numbers_that_break_while_tuning_name_the_layer(recipe: Recipe) -> None:
    prepared = prepare(recipe)

    def damage(log: UpdateLog) -> None:
        if log.update == 3:
            with torch.no_grad():
                prepared.decoder.blocks[1].down.weight[5] = float("inf")

    with pytest.raises(Diverged, match=r"after update 3: the loss is nan; .* in what layer 1 wrote, or in .* layer 2"):
        fit(changed(recipe, evaluate_every=50, precision="fp32"), prepared, Callbacks(on_step=damage))


def test_a_full_disk_is_a_clear_error_and_corrupts_nothing(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    real = os.fsync

    def full_in_the_second(handle: int) -> None:
        nonlocal writes
        writes += 1
        if writes > 8:  # a checkpoint is flushed in seven parts
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", full_in_the_second)
    with pytest.raises(MachineError, match="the disk is full"):
        fit(recipe, prepare(recipe))
    assert [p.name for p in (recipe.output / "checkpoints").iterdir()] == ["update-000004"]

    monkeypatch.setattr(os, "fsync", real)
    whole = changed(recipe, output=recipe.output.with_name("whole"))
    fit(recipe, prepare(recipe))
    fit(whole, prepare(whole))
    assert curve(recipe.output) == curve(whole.output)


def test_tensorboard_curves_are_written(recipe: Recipe) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = changed(recipe, tensorboard=True, epochs=1)
    tuned = fit(curves, prepare(curves))
    events = EventAccumulator(str(curves.output / "tensorboard")).Reload()
    assert len(events.Scalars("tune/loss")) == tuned.updates_in_all
    assert "held_out_by_category/open_qa" in events.Tags()["scalars"]
