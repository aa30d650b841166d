"""From a recipe to a plan: what it fixes, what its records are as work, and refusals."""

from pathlib import Path

import pytest
import torch

from roslin.errors import InputError, MachineError
from roslin.memory import GIB, GPUS
from roslin.model.published import PUBLISHED
from roslin.tokens import Example
from roslin.tune import Recipe, prepare
from roslin.tune import setup as preparing
from roslin.tune.alternatives import lacking, precision_on, ways
from roslin.tune.course import Course
from roslin.tune.dealing import deal
from roslin.tune.dolly_15k import lengths
from roslin.tune.faster import set_passes
from roslin.tune.packing import join_rows
from roslin.tune.plan import Machine, as_planned, gpus_of, machine_of, plan_run
from roslin.tune.work import run_of, sizes_of, work_before_tuning
from run_recipes import changed
from tiny_decoders import tiny_decoder

CONFIG = PUBLISHED["EleutherAI/pythia-6.9b"].config


def dolly(**values: object) -> Recipe:
    held_out = {"split": "dolly", "count": 200}
    model = {"model": "EleutherAI/pythia-6.9b", "records": ["databricks/databricks-dolly-15k"]}
    return Recipe.parse(model | {"output": "runs/x", "held_out": held_out} | values)


def test_lengths_of_dolly_15k_are_those_of_the_records() -> None:
    """As FACTS has them: 3,021,113 tokens, 2,910,722 of them in records below 2,048."""
    found = lengths()
    assert len(found) == 15_011
    assert sum(tokens for tokens, _ in found) == pytest.approx(3_021_113, rel=1e-3)
    fitting = [size for size in found if size[0] < 2048]
    assert sum(tokens for tokens, _ in fitting) == pytest.approx(2_910_722, rel=3e-3)
    assert sum(answer for _, answer in fitting) / sum(tokens for tokens, _ in fitting) == pytest.approx(0.417, abs=0.01)


def test_dollys_run_as_work() -> None:
    run, said = work_before_tuning(dolly(), None)
    assert "databricks-dolly-15k" in said
    assert run.updates == 616
    assert run.tokens == pytest.approx(5.74e6, rel=0.01)
    assert run.work.mean_update == pytest.approx(9_329, rel=0.01)
    assert 20_000 < run.work.longest_update < 24_000


def test_work_of_examples_is_that_of_their_updates(recipe: Recipe) -> None:
    examples = [Example(ids=list(range(length)), answer_start=5) for length in (20, 40, 100, 60)]
    recipe = changed(recipe, records_per_update=2, epochs=1, warmup_updates=0)
    run = run_of(Course(recipe, [len(example.ids) for example in examples]), sizes_of(examples), recipe.row_length)
    assert run.tokens == 220
    assert run.work.mean_update == 220 / run.updates
    assert run.work.answer_share == 200 / 220
    assert run.work.attended == (20**2 + 40**2 + 100**2 + 60**2) / 220


@pytest.mark.parametrize("processes", [1, 3])
def test_the_longest_pass_is_one_that_the_loop_makes(processes: int) -> None:
    """Rows seldom fill a pass: memory is predicted for what the records come to."""
    sizes = [size for size in lengths()[:2000] if size[0] < 2048]
    course = Course(dolly(epochs=1), [tokens for tokens, _ in sizes])
    run = run_of(course, sizes, 2048)
    tokens = [size for size, _ in sizes]
    updates = [rows for rows, _ in zip(course.after(0), range(run.updates), strict=True)]
    for most in (2_048, 5_000, 9_984, 30_000):
        made = [
            sum(tokens[i] for i in one)
            for rows in updates
            for part in deal(rows, tokens, processes)
            for one in join_rows(part, tokens, most)
        ]
        assert run.longest_pass(most, processes) == max(made) <= most


def test_memory_is_predicted_for_the_longest_pass_there_is() -> None:
    run, _ = work_before_tuning(dolly(), None)
    machine = gpus_of("h100")
    plan = plan_run(dolly(), CONFIG, "bf16", run, machine)
    longest = run.longest_pass(plan.tokens_per_pass)
    assert longest < plan.tokens_per_pass
    exactly = plan_run(dolly(tokens_per_pass=longest), CONFIG, "bf16", run, machine)
    assert plan.parts == exactly.parts
    assert plan.fits


def test_records_that_are_here_are_counted(recipe: Recipe, tiny_base: Path) -> None:
    run, said = work_before_tuning(recipe, tiny_base)
    assert said == "60 records"
    prepared = prepare(recipe)
    assert run.tokens == pytest.approx(prepared.run.tokens, rel=0.15)
    _, without = work_before_tuning(recipe, None)
    assert "shipped base's tokenizer" in without


def test_a_recipe_fixes_what_it_says() -> None:
    run, _ = work_before_tuning(dolly(), None)
    recipe = dolly(
        optimizer={"moments": "bf16", "gradients": "fp32"}, checkpointing="all", tokens_per_pass=4096, fp8=True
    )
    plan = plan_run(recipe, CONFIG, "bf16", run, gpus_of("h200"))
    assert (plan.moments, plan.gradients, plan.checkpointed_layers, plan.tokens_per_pass, plan.fp8) == (
        "bf16", "fp32", 32, 4096, True,
    )  # fmt: skip
    assert plan_run(dolly(checkpointing=3), CONFIG, "bf16", run, gpus_of("h200")).checkpointed_layers == 3


def test_one_pass_and_shorter_passes_exclude_each_other() -> None:
    run, _ = work_before_tuning(dolly(), None)
    recipe = dolly(optimizer={"in_backward": True}, clip_norm=None, tokens_per_pass=4096)
    with pytest.raises(InputError, match=r"every update is one pass, the longest of 22\d\d\d tokens"):
        plan_run(recipe, CONFIG, "bf16", run, gpus_of("h200"))


def test_fp8_is_refused_where_no_product_would_be_taken_in_it(recipe: Recipe) -> None:
    run, _ = work_before_tuning(dolly(), None)
    for asked in (dolly(fp8=True, adapter={}), *(dolly(fp8=True, precision=name) for name in ("fp32", "fp16"))):
        with pytest.raises(InputError, match="set fp8=false"):
            plan_run(asked, CONFIG, "bf16", run, gpus_of("h100"))
    with pytest.raises(InputError, match="set fp8=false"):
        plan_run(dolly(fp8=True), tiny_decoder("llama").config, "bf16", run, gpus_of("h100"))
    with pytest.raises(MachineError, match="on a CPU: set fp8=false"):
        prepare(changed(recipe, fp8=True, precision="bf16"))


def test_a_run_may_go_on_with_other_passes() -> None:
    """Whether an update is one pass or several changes nothing of what a checkpoint must agree with."""
    run, _ = work_before_tuning(dolly(), None)
    config = PUBLISHED["EleutherAI/pythia-2.8b"].config
    plans = [
        plan_run(recipe, config, "bf16", run, gpus_of("h100")) for recipe in (dolly(), dolly(tokens_per_pass=8192))
    ]
    assert [plan.settings.one_pass for plan in plans] == [True, False]
    first, second = (as_planned(dolly(), plan) for plan in plans)
    assert first == second


def test_replicas_come_out_even() -> None:
    run, _ = work_before_tuning(dolly(), None)
    recipe = dolly(sharding={"replicas": 2})
    with pytest.raises(InputError, match=r"replicas is 2, and 1 processes are no multiple"):
        plan_run(recipe, CONFIG, "bf16", run, gpus_of("h100"))
    plan = plan_run(recipe, CONFIG, "bf16", run, gpus_of("h100", 4))
    assert plan.settings.shards == 2
    counts = {way.machine.count for several in ways(recipe, CONFIG, run).values() for way in several}
    assert counts <= {2, 4, 8}


def test_a_cpu_takes_rows_one_by_one_and_updates_exactly(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    plan = prepared.plan
    assert (plan.moments, plan.gradients, plan.checkpointed_layers) == ("fp32", "fp32", 0)
    assert plan.tokens_per_pass <= recipe.row_length
    assert plan.memory == machine_of(torch.device("cpu")).memory > GIB
    assert prepared.decoder.blocks[0].runner is None


def test_what_cannot_fit_a_gpu_is_refused_before_the_model_is_loaded(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "machine_of", lambda device, count: Machine(GIB // 100, GPUS["h100"]))
    monkeypatch.setattr(preparing, "_load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(MachineError) as raised:
        prepare(recipe)
    text = str(raised.value)
    assert "does not fit H100 80 GB" in text
    assert "activations" in text
    assert "What helps: precision=bf16" in text
    assert raised.value.exit_code == 3


def test_layers_are_recomputed_as_planned() -> None:
    decoder = tiny_decoder("llama")
    run, _ = work_before_tuning(dolly(), None)
    plan = plan_run(dolly(checkpointing=2), decoder.config, "fp32", run, gpus_of("h100"))
    set_passes(decoder, plan)
    runs_by_itself = [block.runner is not None for block in decoder.blocks]
    assert runs_by_itself == [True, True, False]


def test_gpus_that_lack_bf16_compute_in_fp16() -> None:
    """Not where steps are made before it is known whether a gradient is beyond fp16; nor in bf16 at all."""
    at_once = {"optimizer": {"in_backward": True}, "clip_norm": None}
    assert precision_on(dolly(), gpus_of("t4")) == "fp16"
    assert precision_on(dolly(**at_once), gpus_of("t4")) == "fp32"
    assert precision_on(dolly(precision="fp32"), gpus_of("t4")) == "fp32"
    assert precision_on(dolly(precision="fp16"), gpus_of("h100")) == "fp16"
    assert precision_on(dolly(), gpus_of("l4")) == "bf16"
    assert lacking(dolly(precision="bf16"), GPUS["v100"]) == "has no bf16 (precision=fp16 or auto)"
    assert lacking(dolly(precision="fp16"), GPUS["v100"]) is None
    assert lacking(dolly(fp8=True), GPUS["a100"]) == "has no fp8"
    assert lacking(dolly(fp8=True), GPUS["h100"]) is None


def test_ways_for_every_gpu() -> None:
    run, _ = work_before_tuning(dolly(), None)
    found = ways(dolly(), CONFIG, run)
    assert list(found) == list(GPUS)
    [h100] = found["h100"]
    assert (h100.machine.count, h100.change, h100.plan.moments) == (1, "", "8bit")
    assert [(way.machine.count, way.change) for way in found["a10"]] == [(4, ""), (1, "adapter={}")]
    assert [(way.machine.count, way.change) for way in found["t4"]] == [(8, ""), (1, "adapter.quantize=nf4")]
    assert all(way.plan.fits for several in found.values() for way in several)
    adapters = ways(dolly(adapter={"quantize": "nf4"}), CONFIG, run)
    assert all(way.machine.count == 1 and not way.change for several in adapters.values() for way in several)


def test_changes_are_said_as_far_as_the_recipe_needs_them() -> None:
    """What a recipe says of passes, sums or fp8 does not keep it from being changed to what excludes that."""
    recipe = dolly(records_per_update=24, tokens_per_pass=4096, optimizer={"gradients": "fp32"}, fp8=True)
    run, _ = work_before_tuning(recipe, None)
    at_once = "optimizer.in_backward=true clip_norm=null optimizer.gradients=auto tokens_per_pass=null"
    for size, change in (("2.8b", at_once), ("6.9b", "adapter={} fp8=false")):
        config = PUBLISHED[f"EleutherAI/pythia-{size}"].config
        assert change in {way.change for way in ways(recipe, config, run)["l4"]}


def test_an_adapter_is_planned_for_one_gpu_that_holds_its_base() -> None:
    """As `roslin tune` trains it; adapters in place of a whole model that is offloaded are planned without that."""
    run, _ = work_before_tuning(dolly(), None)
    for recipe, count in ((dolly(adapter={}), 8), (dolly(adapter={}, sharding={"offload": True}), 1)):
        with pytest.raises(InputError, match="trained by one process"):
            plan_run(recipe, CONFIG, "bf16", run, gpus_of("h100", count))
    offloaded = dolly(sharding={"offload": True}, tokens_per_pass=8192, checkpointing="none")
    found = ways(offloaded, CONFIG, run)
    assert found["t4"] == []
    assert [way.change for way in found["l4"]] == [""]
