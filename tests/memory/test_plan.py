"""What is chosen for a device's memory: exact where it fits and costs little, lean where it must be."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin.memory import GIB, GPUS, Asked, TuningPlan, Work, choose_tuning, tuning
from roslin.memory.plan import USABLE
from roslin.model.published import PUBLISHED

DOLLY = Work(longest_update=22_473, mean_update=9_329)
"""databricks-dolly-15k, 48 records an update."""
HALF = Work(longest_update=12_266, mean_update=4_665)
"""The same with 24."""
CONFIGS = {size: PUBLISHED[f"EleutherAI/pythia-{size}"].config for size in ("2.8b", "6.9b", "12b")}


def chosen(
    size: str, gpu: str, asked: Asked | None = None, work: Work = DOLLY, gpus: int = 1, shards: int | None = None
) -> TuningPlan:
    found = GPUS[gpu]
    return choose_tuning(
        CONFIGS[size], memory_bytes=found.memory, work=work, asked=asked, gpu=found, gpus=gpus, shards=shards
    )


def test_6_9_b_on_an_h100_has_8_bit_moments_and_checkpoints_nothing() -> None:
    plan = chosen("6.9b", "h100")
    assert plan.fits
    assert plan.total < 75 * GIB
    assert (plan.moments, plan.gradients, plan.in_backward, plan.checkpointed_layers) == ("8bit", "bf16", False, 0)
    assert 8_192 < plan.tokens_per_pass < DOLLY.longest_update


def test_2_8_b_on_an_h100_is_exact_in_one_pass() -> None:
    """Gradients of one pass lose nothing in bf16, and are not there when activations are."""
    plan = chosen("2.8b", "h100")
    assert plan.fits
    assert (plan.moments, plan.tokens_per_pass, plan.checkpointed_layers) == ("fp32", DOLLY.longest_update, 0)
    assert plan.parts["gradients"] == 0


def test_2_8_b_on_an_a10_needs_the_optimizer_in_the_backward_pass() -> None:
    assert not chosen("2.8b", "a10").fits
    plan = chosen("2.8b", "a10", Asked(in_backward=True), HALF)
    assert plan.fits
    assert plan.moments == "8bit"
    assert plan.tokens_per_pass == HALF.longest_update
    assert 0 < plan.checkpointed_layers < 32


def test_12_b_on_an_h100_needs_it_too_and_checkpoints() -> None:
    assert not chosen("12b", "h100").fits
    plan = chosen("12b", "h100", Asked(in_backward=True), HALF)
    assert plan.fits
    assert plan.checkpointed_layers > 18
    assert plan.parts["gradients"] == 0


def test_12_b_on_an_h200_and_on_two_h100_checkpoints_nothing() -> None:
    for plan in (chosen("12b", "h200"), chosen("12b", "h100", gpus=2)):
        assert plan.fits
        assert plan.checkpointed_layers == 0


def test_8_gpus_hold_an_eighth_of_the_weights_each_or_a_copy() -> None:
    one, eight = chosen("6.9b", "h200"), chosen("6.9b", "h200", gpus=8)
    assert eight.parts["weights"] == one.parts["weights"] // 8
    assert eight.parts["moments"] == one.parts["moments"] // 8
    assert eight.parts["gathered"] > 0
    assert eight.tokens_per_pass < one.tokens_per_pass
    copies = chosen("6.9b", "h200", gpus=8, shards=4)
    assert copies.parts["weights"] == one.parts["weights"] // 4


def test_offloaded_weights_leave_the_gpu() -> None:
    plan = chosen("12b", "a10", Asked(offload=True), gpus=2)
    assert plan.fits
    assert plan.parts["weights"] == plan.parts["moments"] == plan.parts["masters"] == 0


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (Asked(moments="fp32"), {"moments": "fp32"}),
        (Asked(gradients="fp32"), {"gradients": "fp32"}),
        (Asked(recomputed_layers=0), {"checkpointed_layers": 0}),
        (Asked(recomputed_layers=7), {"checkpointed_layers": 7}),
        (Asked(tokens_per_pass=4096), {"tokens_per_pass": 4096}),
    ],
)
def test_what_is_asked_is_kept(asked: Asked, wanted: dict[str, object]) -> None:
    for gpu in ("a100-40", "h100", "b200"):
        plan = chosen("2.8b", gpu, asked)
        assert {name: getattr(plan, name) for name in wanted} == wanted


def test_in_backward_is_never_chosen() -> None:
    plans = [chosen(size, gpu) for size in CONFIGS for gpu in GPUS]
    assert not any(plan.in_backward for plan in plans)
    assert any(not plan.fits for plan in plans)


def test_the_leanest_is_given_where_nothing_fits() -> None:
    plan = chosen("12b", "a10")
    assert not plan.fits
    assert (plan.moments, plan.checkpointed_layers, plan.tokens_per_pass) == ("8bit", 36, 2048)


def test_adapters_take_long_passes_and_checkpoint_where_they_must() -> None:
    easy, tight = chosen("2.8b", "h100", Asked("lora")), chosen("6.9b", "a10", Asked("lora"))
    assert easy.checkpointed_layers == 0
    assert 0 < tight.checkpointed_layers < 32
    assert easy.fits
    assert tight.fits


def test_speed_is_told_of_known_gpus_alone() -> None:
    plan = choose_tuning(CONFIGS["6.9b"], memory_bytes=80 * GIB, work=DOLLY)
    assert plan.fits
    assert plan.update_seconds is None


def test_speeds_are_in_the_order_that_they_must_be() -> None:
    speeds = [chosen("2.8b", gpu).update_seconds or 0 for gpu in ("b200", "h200", "h100", "a100")]
    assert all(fast < slow for fast, slow in pairwise(speeds))
    plain, quick = chosen("6.9b", "h100"), chosen("6.9b", "h100", Asked(fp8=True))
    assert (quick.update_seconds or 0) < (plain.update_seconds or 0)
    again = chosen("6.9b", "h200", Asked(recomputed_layers=32))
    share = (again.update_seconds or 0) / (chosen("6.9b", "h200").update_seconds or 1)
    assert 1.15 < share < 1.4


def test_6_9_b_on_an_h100_is_predicted_near_the_best_that_was_measured_there() -> None:
    """A prototype of the same passes made 13,738 tokens a second, and no more than 19,400 are possible."""
    plan = chosen("6.9b", "h100")
    assert 13_738 < DOLLY.mean_update / (plan.update_seconds or 1) < 19_400


@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from(sorted(CONFIGS)),
    memory=st.integers(10, 200),
    longest=st.integers(100, 40_000),
    in_backward=st.booleans(),
)
def test_a_plan_keeps_its_word(size: str, memory: int, longest: int, in_backward: bool) -> None:
    """What it says fits does; passes hold a row; parts are those of its own settings; more memory never hurts."""
    work = replace(DOLLY, longest_update=longest, mean_update=longest / 2)
    asked = Asked(in_backward=in_backward)
    plan = choose_tuning(CONFIGS[size], memory_bytes=memory * GIB, work=work, asked=asked)
    assert plan.fits == (plan.total <= memory * GIB * USABLE)
    assert min(2048, longest) <= plan.tokens_per_pass <= max(longest, 2048)
    answers = round(plan.tokens_per_pass * work.answer_share)
    found = tuning(CONFIGS[size], "bf16", plan.tokens_per_pass, settings=plan.settings, answers=answers)
    assert plan.parts == found.parts()
    more = choose_tuning(CONFIGS[size], memory_bytes=(memory + 20) * GIB, work=work, asked=asked)
    assert more.fits or not plan.fits
