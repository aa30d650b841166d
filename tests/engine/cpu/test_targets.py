"""Log-probabilities of targets without their logits, against torch in float64, at every level."""

import pytest
import torch
from torch import Tensor

from cpu_kernels import needs_kernels
from roslin.engine.cpu.matrix import PackedMatrix, Products, Source, Sum
from roslin.model.quantised import quantise_8

pytestmark = needs_kernels

SHAPES = [(1, 8), (5, 16), (64, 20), (512, 64), (1234, 100)]


def head_of(outputs: int, inputs: int, *, bits: int | None = None, bias: bool = True, spread: float = 0.5) -> Products:
    torch.manual_seed(outputs)
    weight = torch.randn(outputs, inputs) * spread
    packed = PackedMatrix(quantise_8(weight) if bits else weight)
    return Products([Source(inputs)], [Sum(packed, 0, torch.randn(outputs) if bias else None)])


def asked(rows: int, outputs: int) -> tuple[Tensor, Tensor]:
    """None, one or several targets a row, and each of their ids."""
    counts = torch.arange(rows) % 4
    return counts, torch.randint(0, outputs, (int(counts.sum()),))


@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("bits", [None, 8])
def test_they_equal_the_log_softmax_in_float64(level: int, outputs: int, inputs: int, bits: int | None) -> None:
    head = head_of(outputs, inputs, bits=bits, bias=outputs % 2 == 0)
    for rows in (1, 9, 300):
        x = torch.randn(rows, inputs)
        counts, targets = asked(rows, outputs)
        logits = head(x)[0].double()
        row = torch.arange(rows).repeat_interleave(counts)
        logprobs, first = head.logprobs(x, counts, targets)
        expected = logits.log_softmax(-1)[row, targets]
        torch.testing.assert_close(logprobs.double(), expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(first.bool(), logits.argmax(-1)[row] == targets)


def test_of_equal_first_choices_the_lowest_is_the_one(level: int) -> None:
    weight = torch.zeros(1500, 8)
    weight[[3, 19, 700, 1499], 0] = 1
    head = Products([Source(8)], [Sum(PackedMatrix(weight), 0)])
    x = torch.ones(2, 8)
    x[1] = -1
    targets = torch.tensor([0, 3, 19, 700, 1499] * 2)
    _, first = head.logprobs(x, torch.tensor([5, 5]), targets)
    assert first.tolist() == [0, 1, 0, 0, 0, 1, 0, 0, 0, 0]


def test_a_row_is_the_same_to_the_bit_whatever_rows_and_threads_are_beside_it(level: int) -> None:
    head = head_of(3000, 40)
    x, counts = torch.randn(300, 40), torch.full((300,), 2)
    targets = torch.randint(0, 3000, (600,))
    together = head.logprobs(x, counts, targets)
    for row in (0, 7, 255, 256, 299):
        alone = head.logprobs(x[row : row + 1], torch.tensor([2]), targets[2 * row : 2 * row + 2])
        assert torch.equal(alone, together[:, 2 * row : 2 * row + 2])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(head.logprobs(x, counts, targets), together)
    finally:
        torch.set_num_threads(threads)


def test_logits_far_apart_and_far_from_zero_are_no_trouble(level: int) -> None:
    head = Products([Source(1)], [Sum(PackedMatrix(torch.tensor([[0.0], [1.0], [-1.0]])), 0)])
    x = torch.tensor([[5000.0], [-5000.0], [1e30]])
    logprobs, _ = head.logprobs(x, torch.tensor([3, 3, 3]), torch.tensor([0, 1, 2] * 3))
    expected = head(x)[0].double().log_softmax(-1).flatten()
    torch.testing.assert_close(logprobs.double(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_stay_so(level: int, bad: float) -> None:
    head = head_of(1100, 20)
    x = torch.ones(3, 20)
    x[1, 19] = bad
    logprobs, _ = head.logprobs(x, torch.ones(3, dtype=torch.int64), torch.tensor([5, 1090, 700]))
    assert logprobs.isfinite().tolist() == [True, False, True]
    weight = torch.randn(1100, 20)
    weight[1050, 0] = bad  # one logit of all
    [logprob], _ = Products([Source(20)], [Sum(PackedMatrix(weight), 0)]).logprobs(
        torch.ones(1, 20), torch.tensor([1]), torch.tensor([1050])
    )
    assert not logprob.isfinite()
