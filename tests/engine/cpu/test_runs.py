"""Attention of a sequence's last tokens by the C++ kernel, against plain torch."""

import pytest
import torch

from cpu_kernels import needs_kernels
from roslin.engine.cpu.attention import CppAttention
from roslin.engine.gathered import GatheredAttention

pytestmark = needs_kernels


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("heads", "groups", "head_dim"), [(3, 3, 64), (6, 2, 20), (2, 1, 7)])
@pytest.mark.parametrize(("length", "count"), [(1, 1), (60, 60), (61, 33), (130, 50)])
@pytest.mark.parametrize("window", [None, 9, 100])
def test_it_equals_plain_torch(
    level: int, dtype: torch.dtype, heads: int, groups: int, head_dim: int, length: int, count: int, window: int | None
) -> None:
    torch.manual_seed(length)
    # As they come: parts of wider rows.
    q_CHK = torch.randn(count, heads + 2, head_dim).to(dtype)[:, :heads]
    k_TGK, v_TGK = torch.randn(length, 2 * groups + 1, head_dim).to(dtype)[:, 1:].split(groups, 1)
    expected = GatheredAttention().attend_last(q_CHK, k_TGK, v_TGK, window)
    found = CppAttention().attend_last(q_CHK, k_TGK, v_TGK, window)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_token_gathers_the_same_to_the_bit_however_a_prompt_is_cut() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 100, 4, 32)
    whole = CppAttention().attend_last(q, k, v, None)
    for start, stop in ((0, 40), (40, 77), (77, 100)):
        part = CppAttention().attend_last(q[start:stop], k[:stop], v[:stop], None)
        assert torch.equal(part, whole[start:stop])
