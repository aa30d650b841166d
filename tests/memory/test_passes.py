"""Memory of written-out blocks, against what torch holds when their plain-torch twin runs on a CPU."""

from pathlib import Path

import pytest
import torch

from allocations import allocated, peak_of, row, scaled
from roslin.memory import passes
from roslin.memory.tuning import loss_workspace
from roslin.model import Decoder, ModelConfig
from roslin.tune.held_out import hidden_of_answers
from roslin.tune.passes import speed_up
from roslin.tune.step import accumulate

pytestmark = [
    pytest.mark.parametrize("family", ["gpt_neox", "gptj"]),
    pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16]),
    pytest.mark.parametrize("recomputed", [0, 1, 2]),
]


def ready(config: ModelConfig, dtype: torch.dtype, recomputed: int) -> Decoder:
    """With gradients and tables as they are after a pass before."""
    decoder = Decoder(config).to(dtype)
    speed_up(decoder, recomputed_layers=recomputed)
    for parameter in decoder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    hidden_of_answers(decoder, row([3]))
    return decoder


@pytest.mark.parametrize("lengths", [[90, 70, 40], [1, 150]])
def test_activations_are_what_a_forward_pass_leaves(
    family: str, dtype: torch.dtype, recomputed: int, lengths: list[int], tmp_path: Path
) -> None:
    """Besides its result, the hidden states at answers."""
    config = scaled(family, layers=3)
    decoder, pack = ready(config, dtype, recomputed), row(lengths)
    left = allocated(lambda: hidden_of_answers(decoder, pack), tmp_path).left
    left -= pack.answer_count * config.width * dtype.itemsize
    predicted = passes.activations(config, dtype.itemsize, sum(lengths), recomputed, at_once=False)
    assert predicted == pytest.approx(left, rel=0.05)


@pytest.mark.parametrize(("lengths", "rows"), [([200, 100], 64), ([800, 300], 64), ([800, 300], 2048)])
def test_the_peak_of_a_pass(
    family: str, dtype: torch.dtype, recomputed: int, lengths: list[int], rows: int, tmp_path: Path
) -> None:
    """With few rows of the vocabulary the peak is in the blocks, with many in the loss."""
    config = scaled(family, width=256, heads=4, kv_heads=4, inner=1024, layers=2, vocab_rows=rows)
    decoder, pack, size = ready(config, dtype, recomputed), row(lengths, rows), dtype.itemsize
    tokens = sum(lengths)
    blocks = passes.backward_workspace(config, size, tokens, "cpu", gradients_apart=False)
    if recomputed == config.layers:
        blocks += tokens * (passes.block_keeps(config, size, at_once=False) - size * config.width)
    loss = loss_workspace(config, size, pack.answer_count, "cpu")
    predicted = passes.activations(config, size, tokens, recomputed, at_once=False) + max(blocks, loss)
    peak = peak_of(lambda: accumulate(decoder, [pack], pack.answer_count), tmp_path)
    assert predicted == pytest.approx(peak, rel=0.05)
