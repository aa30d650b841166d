"""The GPU's attention, in the interpreter where there is no GPU, against plain torch over the same cache."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from roslin.engine.beginnings import Beginnings
from roslin.engine.blocks import BLOCK, blocks_for
from roslin.engine.cache import KVCache, as_kept, raw
from roslin.engine.gathered import GatheredAttention
from roslin.engine.gpu import paged
from roslin.engine.gpu.paged import GpuAttention, SharedPlaces, Tokens
from roslin.engine.paged import PagedAttention, Span
from roslin.engine.slots import Slots
from roslin.model import ModelConfig
from roslin.model.fp8 import FP8
from roslin.model.rotary import Rotary
from tiny_decoders import tiny_decoder


@pytest.fixture(autouse=True)
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU for which a handful is enough: in the interpreter each one takes milliseconds."""
    monkeypatch.setattr(paged, "PROGRAMS", 24)
    paged._scratch.cache_clear()


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def config_of(heads: int, groups: int, head_dim: int, window: int | None, *, interleaved: bool) -> ModelConfig:
    rotary = max(2, head_dim // 4 * 2)
    changes = {"heads": heads, "kv_heads": groups, "head_dim": head_dim, "width": heads * head_dim, "window": window}
    changes |= {"rotary_dims": rotary, "rotary_interleaved": interleaved, "layers": 1}
    return replace(tiny_decoder("gpt_neox").config, **changes)


class Both:
    """One cache twice, filled alike, with a slot's blocks strewn over it: plain torch's and the kernels'."""

    def __init__(
        self, config: ModelConfig, dtype: torch.dtype, slots: int, longest: int, kept: torch.dtype | None = None
    ) -> None:
        width = blocks_for(longest)
        self.config, self.dtype = config, dtype
        self.caches = [KVCache(config, kept or dtype, DEVICE) for _ in range(2)]
        for cache in self.caches:
            assert cache.provide(slots * width)
        for one, other in zip(*(cache.layers[0] for cache in self.caches), strict=True):
            for own in (one, other):
                raw(own).copy_(
                    raw(as_kept(torch.randn(own.shape, generator=torch.Generator().manual_seed(5)), own.dtype))
                )
        self.rows_SW = torch.randperm(slots * width).view(slots, width).int().numpy()

    def compare(self, spans: list[Span], *, fused: bool, tolerance: float, shares: int = 0) -> None:
        """Turned, written and attended by both: the same cache afterwards, and the same gathered.

        With `shares`, what the single tokens' sequences begin with is read in so many parts for all of them.
        """
        config = self.config
        plain = PagedAttention(self.caches[0], GatheredAttention(), self.rows_SW, spans)
        slots_N = torch.tensor([span.slot for span in spans for _ in range(span.count)], device=DEVICE)
        starts = [0]
        for span in spans:
            starts.append(starts[-1] + span.count)
        tiles = [
            (start + first, min(paged.RUN, span.count - first), span.start + first, span.slot)
            for start, span in zip(starts, spans, strict=False)
            for first in range(0, span.count, paged.RUN)
            if span.count > 1
        ]
        runs_T4 = None if fused else torch.tensor(tiles, dtype=torch.int32, device=DEVICE).view(-1, 4)
        alone = sum(span.count == 1 for span in spans)
        shared = self.shared(spans[:alone], shares) if shares else None
        own = Tokens(slots_N, plain.positions_N, alone, runs_T4, shared=shared)
        tables = torch.from_numpy(self.rows_SW).to(DEVICE)
        kernels = GpuAttention(self.caches[1], tables, own)
        turns = Rotary(config).turns(plain.positions_N, self.dtype, plain)
        # Rows that lie apart, as a product's that holds more than queries, keys and values.
        wide_NX = torch.randn(len(slots_N), config.qkv_rows + 24, device=DEVICE).to(self.dtype)
        qkv_NA = wide_NX[:, : config.qkv_rows]
        outs = [torch.zeros(len(slots_N), config.query_rows + 8, device=DEVICE, dtype=self.dtype) for _ in range(2)]
        views = [out[:, : config.query_rows] for out in outs]
        kernels.from_qkv(0, qkv_NA, turns, views[1])
        plain.from_qkv(0, qkv_NA.clone(), turns, views[0])
        torch.testing.assert_close(outs[1], outs[0], atol=tolerance, rtol=tolerance)
        for one, other in zip(*(cache.layers[0] for cache in self.caches), strict=True):
            torch.testing.assert_close(other.float(), one.float(), atol=tolerance / 5, rtol=tolerance / 5)
        # And with everything turned before, as plain decoders have it.
        heads_NGK = turns.apply(qkv_NA.clone().view(len(qkv_NA), -1, config.head_dim))
        parts = heads_NGK.split_with_sizes((config.heads, config.kv_heads, config.kv_heads), 1)
        found_NHK, expected_NHK = kernels(0, *parts), plain(0, *parts)
        torch.testing.assert_close(found_NHK, expected_NHK, atol=tolerance, rtol=tolerance)

    def begin_alike(self, slots: list[int], blocks: int) -> None:
        """Let these slots' sequences have their first blocks in common."""
        self.rows_SW[slots, :blocks] = self.rows_SW[slots[0], :blocks]

    def shared(self, spans: list[Span], shares: int) -> SharedPlaces:
        """As the engine finds it."""
        slots = Slots(1, 1)
        slots.rows_SW = self.rows_SW
        at_once = paged.members(self.config.heads, self.config.kv_heads)
        found = Beginnings(slots, at_once).shared([span.slot for span in spans], [span.start for span in spans])
        assert found is not None and found.commons_N.any()
        return SharedPlaces(*(torch.from_numpy(x).to(DEVICE) for x in (found.commons_N, found.tiles_TX)), shares)


@pytest.mark.parametrize("head_dim", [64, 80, 96, 128, 256, 20, 10])
@pytest.mark.parametrize(("heads", "groups", "window"), [(2, 2, None), (1, 1, 37), (3, 1, None), (6, 2, 37)])
def test_tokens_that_come_alone_equal_plain_torch(head_dim: int, heads: int, groups: int, window: int | None) -> None:
    torch.manual_seed(head_dim)
    both = Both(config_of(heads, groups, head_dim, window, interleaved=head_dim % 3 == 0), torch.float32, 5, 240)
    # At the beginning, on a block's and a tile's edges, and far on.
    spans = [Span(slot, start, start + 1, 1) for slot, start in [(3, 0), (1, 15), (4, 16), (0, 64), (2, 230)]]
    both.compare(spans, fused=True, tolerance=2e-5)


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 1)])
@pytest.mark.parametrize("programs", [1, 40])
def test_the_number_of_splits_changes_nothing(
    heads: int, groups: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paged, "PROGRAMS", programs)
    paged._scratch.cache_clear()
    torch.manual_seed(0)
    both = Both(config_of(heads, groups, 64, None, interleaved=False), torch.float32, 2, 400)
    for start in (390, 391):  # twice: what one launch leaves must not harm the next
        both.compare([Span(1, start, start + 1, 1), Span(0, 3, 4, 1)], fused=True, tolerance=2e-5)


@pytest.mark.parametrize("head_dim", [64, 80, 256])
@pytest.mark.parametrize(("heads", "groups", "window"), [(1, 1, None), (3, 1, 37)])
def test_prompts_beside_single_tokens_equal_plain_torch(
    head_dim: int, heads: int, groups: int, window: int | None
) -> None:
    torch.manual_seed(head_dim)
    both = Both(config_of(heads, groups, head_dim, window, interleaved=head_dim % 3 == 0), torch.float32, 5, 110)
    # The fourth reads what stands before it in the cache, and the last needs several tiles.
    spans = [Span(1, 100, 101, 1), Span(3, 0, 1, 1), Span(0, 0, 5, 5), Span(4, 40, 52, 52), Span(2, 16, 83, 83)]
    both.compare(spans, fused=False, tolerance=2e-5)


def test_bfloat16_is_as_close_as_its_rounding() -> None:
    torch.manual_seed(0)
    # The interpreter cannot multiply matrices in bfloat16.
    both = Both(config_of(2, 2, 64, None, interleaved=False), torch.bfloat16, 2, 100)
    both.compare([Span(1, 70, 71, 1), Span(0, 5, 6, 1)], fused=True, tolerance=3e-2)


@pytest.mark.parametrize("groups", [2, 1])
def test_float16_is_as_close_as_its_rounding(groups: int) -> None:
    torch.manual_seed(0)
    both = Both(config_of(2, groups, 64, None, interleaved=False), torch.float16, 3, 100)
    both.compare([Span(1, 70, 71, 1), Span(0, 5, 6, 1)], fused=True, tolerance=5e-3)
    both.compare([Span(1, 71, 72, 1), Span(2, 0, 20, 20)], fused=False, tolerance=5e-3)


@pytest.mark.parametrize("beside_prompts", [False, True])
def test_nobodys_tokens_write_nothing_and_gather_zeros(beside_prompts: bool) -> None:
    torch.manual_seed(0)
    config = config_of(2, 2, 64, None, interleaved=False)
    both = Both(config, torch.float32, 2, 32)
    keys, values = (kept.clone() for kept in both.caches[1].layers[0])
    tables = torch.from_numpy(both.rows_SW).to(DEVICE)
    slots, positions = torch.zeros(2, dtype=torch.int64), torch.full((2,), -1)
    runs = torch.zeros(0, 4, dtype=torch.int32, device=DEVICE) if beside_prompts else None
    own = Tokens(slots.to(DEVICE), positions.to(DEVICE), 2, runs)
    out = torch.ones(2, config.query_rows, device=DEVICE)
    qkv = torch.randn(2, config.qkv_rows, device=DEVICE)
    GpuAttention(both.caches[1], tables, own).from_qkv(0, qkv, None, out)
    assert not out.any()
    assert torch.equal(both.caches[1].layers[0][0], keys)
    assert torch.equal(both.caches[1].layers[0][1], values)
    assert keys.shape[2] == BLOCK


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 1)])
def test_an_fp8_cache_equals_plain_torchs(heads: int, groups: int) -> None:
    """The same rounding; what is new is seen as it is kept."""
    torch.manual_seed(0)
    both = Both(config_of(heads, groups, 64, None, interleaved=False), torch.float32, 5, 100, FP8)
    both.compare([Span(3, 0, 1, 1), Span(0, 70, 71, 1), Span(4, 15, 16, 1)], fused=True, tolerance=2e-5)
    both.compare([Span(3, 1, 2, 1), Span(1, 0, 20, 20), Span(2, 16, 83, 83)], fused=False, tolerance=2e-5)


@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (2, 1), (3, 1)])
@pytest.mark.parametrize("shares", [1, 4])
@pytest.mark.parametrize("kept", [torch.float32, pytest.param(FP8, marks=pytest.mark.full)])
def test_a_beginning_that_several_share_is_read_once(
    heads: int, groups: int, shares: int, kept: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two beginnings, one of more rows than a tile has, one row that shares nothing; alone, and beside a prompt."""
    monkeypatch.setattr("roslin.engine.beginnings.WORTH", 1)
    monkeypatch.setattr(paged, "ROWS", 16)
    torch.manual_seed(0)
    both = Both(config_of(heads, groups, 80, None, interleaved=heads == 3), torch.float32, 28, 130, kept)
    both.begin_alike(list(range(20)), 5)
    both.begin_alike(list(range(20, 26)), 1)
    places = [80 + 2 * n for n in range(20)] + [16, 17, 40, 90, 47, 48, 81]
    spans = [Span(slot, start, start + 1, 1) for slot, start in enumerate(places)]
    both.compare(spans[::-1], fused=True, tolerance=2e-5, shares=shares)
    both.compare([*spans, Span(27, 5, 12, 12)], fused=False, tolerance=2e-5, shares=shares)


def test_in_16_bits_a_shared_beginning_is_as_close_as_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.engine.beginnings.WORTH", 1)
    torch.manual_seed(0)
    both = Both(config_of(2, 2, 64, None, interleaved=False), torch.float16, 6, 130)
    both.begin_alike(list(range(6)), 4)
    both.compare([Span(slot, 64 + slot, 65 + slot, 1) for slot in range(6)], fused=True, tolerance=5e-3, shares=1)
