"""The chunked loss against torch's own, values and gradients."""

import pytest
import torch
import torch.nn.functional as F
from pytest import MonkeyPatch

from roslin.tune import loss as module
from roslin.tune.loss import TaughtRows, answer_loss, answer_nll


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_loss_and_gradients_equal_plain_cross_entropy(bias: bool, chunk: int, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    hidden, weight = torch.randn(23, 8, dtype=torch.float64), torch.randn(31, 8, dtype=torch.float64)
    offset = torch.randn(31, dtype=torch.float64) if bias else None
    target = torch.randint(0, 31, (23,))
    inputs = [t.clone().requires_grad_() for t in (hidden, weight) + ((offset,) if bias else ())]
    plain = [t.clone().requires_grad_() for t in (hidden, weight) + ((offset,) if bias else ())]

    found = answer_loss(inputs[0], inputs[1], inputs[2] if bias else None, target, 0.25)
    expected = 0.25 * F.cross_entropy(F.linear(plain[0], plain[1], plain[2] if bias else None), target, reduction="sum")
    (found * 3).backward()
    (expected * 3).backward()

    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(inputs, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("chunk", [7, 64])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_taught_rows_get_their_part_of_the_heads_gradients(
    bias: bool, chunk: int, dtype: torch.dtype, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", chunk)
    torch.manual_seed(0)
    hidden, weight, offset = torch.randn(23, 8).to(dtype), torch.randn(31, 8).to(dtype), torch.randn(31).to(dtype)
    ids, target = torch.tensor([30, 4]), torch.randint(0, 31, (23,))
    whole = [t.clone().requires_grad_() for t in (hidden, weight, offset)]
    answer_loss(whole[0], whole[1], whole[2] if bias else None, target, 0.25).backward()

    exact = torch.promote_types(dtype, torch.float32)
    ours, rows, offsets = (t.clone().requires_grad_() for t in (hidden, weight[ids].to(exact), offset[ids].to(exact)))
    taught = TaughtRows(ids, rows, offsets if bias else None)
    answer_loss(ours, weight, offset if bias else None, target, 0.25, taught).backward()
    pairs = [(ours.grad, whole[0].grad), (rows.grad, whole[1].grad[ids])]
    for found, expected in pairs + ([(offsets.grad, whole[2].grad[ids])] if bias else []):
        assert found is not None
        torch.testing.assert_close(
            found, expected.to(found.dtype), rtol=2e-2 if dtype == torch.bfloat16 else 1e-7, atol=1e-3
        )
    assert rows.grad.dtype == exact


def test_a_frozen_head_costs_no_gradient() -> None:
    hidden = torch.randn(9, 8, requires_grad=True)
    answer_loss(hidden, torch.randn(31, 8), torch.randn(31), torch.randint(0, 31, (9,)), 1.0).backward()
    assert hidden.grad is not None and hidden.grad.abs().sum() > 0


def test_rows_of_an_update_add_up() -> None:
    torch.manual_seed(1)
    hidden, weight, target = torch.randn(20, 8), torch.randn(31, 8), torch.randint(0, 31, (20,))
    whole = answer_loss(hidden, weight, None, target, 1 / 20)
    parts = answer_loss(hidden[:5], weight, None, target[:5], 1 / 20) + answer_loss(
        hidden[5:], weight, None, target[5:], 1 / 20
    )
    torch.testing.assert_close(whole, parts)


def test_the_logits_of_a_row_never_exist(monkeypatch: MonkeyPatch) -> None:
    """No tensor of rows × vocabulary is made: with chunks of 4, the largest logits have 4 rows."""
    monkeypatch.setattr(module, "CHUNK", 4)
    seen = []
    linear = F.linear
    monkeypatch.setattr(module.F, "linear", lambda *a: seen.append(len(a[0])) or linear(*a))
    answer_loss(torch.randn(18, 8, requires_grad=True), torch.randn(31, 8), None, torch.randint(0, 31, (18,)), 1.0)
    assert seen == [4, 4, 4, 4, 2]


def test_nll_token_by_token() -> None:
    torch.manual_seed(2)
    hidden, weight, target = torch.randn(9, 8), torch.randn(31, 8), torch.randint(0, 31, (9,))
    expected = -F.linear(hidden, weight).log_softmax(-1).gather(-1, target[:, None]).squeeze(-1)
    torch.testing.assert_close(answer_nll(hidden, weight, None, target), expected)
    assert answer_nll(hidden[:0], weight, None, target[:0]).shape == (0,)
