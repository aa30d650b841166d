"""Whole runs with every way to keep moments and gradients: resumed bit for bit, and written as exactly as they were."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from roslin.model import load_decoder, save_decoder
from roslin.tune import Callbacks, Interrupted, Recipe, UpdateLog, fit, prepare
from roslin.tune.adamw.split import split
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.state import Checkpoints
from run_recipes import changed
from tiny import tiny_gpt_neox

WAYS: list[Any] = [
    {"optimizer": {"moments": "fp32", "gradients": "bf16"}},
    {"optimizer": {"moments": "bf16"}},
    {"optimizer": {"moments": "8bit"}},
    {"optimizer": {"moments": "8bit", "in_backward": True}, "clip_norm": None, "tokens_per_pass": 2000},
    {"precision": "fp16"},
    pytest.param({"precision": "fp16", "optimizer": {"moments": "8bit", "gradients": "fp16"}}, marks=pytest.mark.full),
]


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A random GPT-NeoX, stored in fp32, whose matrices have whole blocks of 128 numbers."""
    folder = tmp_path_factory.mktemp("wide-base")
    tiny_gpt_neox(folder, vocab_size=8192, hidden_size=128, num_hidden_layers=2, intermediate_size=256)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base_folder / name).read_bytes())
    return folder


@pytest.fixture
def bf16_recipe(recipe: Recipe, wide_base: Path) -> Recipe:
    return changed(recipe, model=str(wide_base), precision="bf16", epochs=0.6, warmup_updates=1, checkpoint_every=2)


def losses(output: Path) -> list[Any]:
    lines = map(json.loads, (output / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["kind"], line.get("loss"), line.get("grad_norm"), line.get("held_out")) for line in lines]


@pytest.mark.parametrize("way", WAYS)
def test_resumed_is_bitwise_the_same(bf16_recipe: Recipe, way: dict[str, Any]) -> None:
    whole = changed(bf16_recipe, **way)
    expected = fit(whole, prepare(whole))
    cut = changed(whole, output=whole.output.with_name("cut"))

    def stop(log: UpdateLog) -> None:
        if log.update == 3:
            raise KeyboardInterrupt  # after update 3, with update 2 in the newest checkpoint

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        fit(cut, prepare(cut), Callbacks(on_step=stop))
    found = fit(cut, prepare(cut))
    assert losses(cut.output) == losses(whole.output)
    for ours, theirs in zip(found.decoder.parameters(), expected.decoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_run_in_bf16_of_a_finer_base_ends_in_exact_weights(bf16_recipe: Recipe, tmp_path: Path) -> None:
    """Written in fp32 they are the masters: rounded, they are the weights that were measured."""
    tuned = fit(bf16_recipe, prepare(bf16_recipe))
    save_decoder(tuned.decoder, tmp_path, dtype=torch.float32)
    written = load_decoder(tmp_path, dtype=torch.float32)
    assert any(not torch.equal(p, p.bfloat16().float()) for p in written.parameters())
    with torch.no_grad():
        for parameter in written.parameters():
            parameter.data = split(parameter.detach())[0]
    assert prepare(bf16_recipe).held_out.measure(written.to(torch.bfloat16)).loss == tuned.held_out.loss


def test_a_base_that_is_finer_than_its_passes_starts_exact(bf16_recipe: Recipe, wide_base: Path) -> None:
    prepared = prepare(bf16_recipe)
    assert prepared.low is not None
    stored = load_decoder(wide_base, dtype=torch.float32)
    for name, parameter in stored.blocks.named_parameters(prefix="blocks"):
        high, low = split(parameter.detach())
        assert torch.equal(dict(prepared.decoder.named_parameters())[name], high)
        assert torch.equal(prepared.low[name], low)


def test_the_best_weights_are_kept_exactly(tmp_path: Path) -> None:
    """The low halves come back with them."""
    net = torch.nn.Linear(128, 64).to(torch.bfloat16)
    optimizer = MasterAdamW(net, betas=(0.9, 0.99), epsilon=1e-8, weight_decay=0.1)
    checkpoints = Checkpoints(tmp_path, 2)

    def step() -> torch.Tensor:
        net(torch.ones(1, 128, dtype=torch.bfloat16)).sum().backward()
        optimizer.update(1e-3, None)
        return optimizer.master("weight").clone()

    best = step()
    checkpoints.save_best(optimizer.masters(), 1)
    assert not torch.equal(step(), best)
    checkpoints.load_best(optimizer.masters(), 1)
    assert torch.equal(optimizer.master("weight"), best)
    assert torch.equal(net.weight, split(best)[0])


def test_updates_shorter_than_a_row_are_one_pass_however_many_rows_they_are(bf16_recipe: Recipe) -> None:
    """Applied in its backward pass, an update must be one."""
    at_once = changed(
        bf16_recipe, optimizer={"in_backward": True}, clip_norm=None, records_per_update=5, row_length=2000
    )
    prepared = prepare(at_once)
    assert prepared.run.work.longest_update < at_once.row_length
    assert any(len(rows) > 1 for rows in prepared.course.after(0))
    assert fit(at_once, prepared).updates == prepared.course.updates


def test_moments_take_less_in_a_checkpoint(bf16_recipe: Recipe) -> None:
    sizes = {}
    for moments in ("fp32", "bf16", "8bit"):
        short = changed(
            bf16_recipe, epochs=0.3, optimizer={"moments": moments}, output=bf16_recipe.output.with_name(moments)
        )
        fit(short, prepare(short))
        files = [file for file in (short.output / "checkpoints").rglob("*") if file.is_file()]
        sizes[moments] = sum(file.stat().st_size for file in files)
    count = sum(p.numel() for p in load_decoder(Path(bf16_recipe.model)).parameters())
    for moments, each in (("fp32", 12), ("bf16", 8), ("8bit", 6.06)):
        assert sizes[moments] == pytest.approx(each * count, rel=0.03), moments
