"""Shares of a model: their numbers are the whole model's, and what they compute adds up to what it does."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from roslin.engine import Network
from roslin.engine.parallel import layers
from roslin.errors import InputError, UsageError
from roslin.model import Decoder, PackedAttention, load_config, load_decoder, packed_positions, save_decoder
from roslin.model.open import load_for_answering
from roslin.model.quantised import Form
from roslin.model.save_quantised import save_quantised
from roslin.model.share import Share, load_share
from tiny_decoders import plain_logits, tiny_decoder

IDS = [5, 9, 2, 33, 60, 17, 1]
MODELS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "gpt_neox": ("gpt_neox", 2, {}),
    "gptj, four": ("gptj", 4, {"heads": 4, "kv_heads": 4, "head_dim": 8}),
    "rows that do not come out even": ("gpt_neox", 2, {"vocab_rows": 65}),
    "llama, grouped heads": ("llama", 2, {"heads": 4, "kv_heads": 2, "head_dim": 8, "rotary_dims": 8}),
    "tied head": ("llama", 2, {"kv_heads": 2, "tied_head": True}),
    "biases everywhere": ("llama", 2, {"kv_heads": 2, "qkv_bias": True, "out_bias": True, "mlp_bias": True}),
    "normed heads": ("qwen3", 2, {"kv_heads": 2}),
    "one after the other": ("gpt_neox", 2, {"parallel_residual": False}),
}


class Together:
    """Sums over threads that stand for processes."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count, timeout=60)
        self._parts: dict[int, Tensor] = {}
        self.turn = threading.Lock()
        """Held by the one that computes: Triton's interpreter is not made for several threads."""

    def total_of(self, rank: int) -> Callable[[Tensor], Tensor]:
        def total(x: Tensor) -> Tensor:
            self._parts[rank] = x.clone()
            self.turn.release()
            self._barrier.wait()
            x.copy_(sum(part for _, part in sorted(self._parts.items())))
            self._barrier.wait()
            self.turn.acquire()
            return x

        return total


@pytest.fixture(params=MODELS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, int]:
    """A model in files, and in how many shares it is to be."""
    family, count, changes = MODELS[request.param]
    save_decoder(tiny_decoder(family, **changes), tmp_path)
    return tmp_path, count


def by_kernels(decoder: Decoder, share: Share, total: Callable[[Tensor], Tensor]) -> Network:
    """As on a GPU, by Triton's kernels, in the interpreter."""
    pytest.importorskip("triton")
    decoder.add_module("embedding", layers.SharedEmbedding(decoder.embedding, share, total))
    return layers._by_kernels(decoder, layers.Exchange(share, total))


def logits_of_shares(folder: Path, count: int, how: Callable[..., Network]) -> Tensor:
    """What all shares compute for IDS together, those of rows beyond the last one included."""
    config = load_config(folder)
    together, found = Together(count), {}

    def compute(rank: int) -> None:
        share = Share(rank, count)
        with torch.no_grad(), together.turn:
            network = how(load_share(folder, config, share, dtype=torch.float32), share, together.total_of(rank))
            attend = PackedAttention([len(IDS)])
            hidden_ND = network.hidden(torch.tensor(IDS), packed_positions([len(IDS)]), attend)
            found[rank] = network.logits(hidden_ND)

    threads = [threading.Thread(target=compute, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return torch.cat([found[rank] for rank in range(count)], 1)


@pytest.mark.parametrize("how", [layers.joined, by_kernels])
@torch.no_grad()
def test_logits_of_all_shares_are_those_of_the_whole(stored: tuple[Path, int], how: Callable[..., Network]) -> None:
    folder, count = stored
    logits_NV, rows = logits_of_shares(folder, count, how), load_config(folder).vocab_rows
    torch.testing.assert_close(logits_NV[:, :rows], plain_logits(load_decoder(folder), IDS), atol=1e-4, rtol=1e-4)
    assert not logits_NV[:, rows:].any()


@pytest.mark.parametrize("how", [layers.joined, by_kernels])
@pytest.mark.parametrize(("form", "group"), [("int8", 64), ("fp8", 64), ("int4", 32)])
@pytest.mark.parametrize(
    ("family", "changes"),
    [("gpt_neox", {}), ("gptj", {"vocab_rows": 65}), ("llama", {"kv_heads": 2, "tied_head": True, "mlp_bias": True})],
)
@torch.no_grad()
def test_quantised_shares_compute_what_the_quantised_whole_does(
    family: str, changes: dict[str, Any], form: Form, group: int, how: Callable[..., Network], tmp_path: Path
) -> None:
    save_quantised(tiny_decoder(family, width=64, head_dim=32, inner=128, **changes), tmp_path, form, group=group)
    logits_NV, rows = logits_of_shares(tmp_path, 2, how), load_config(tmp_path).vocab_rows
    expected_NV = plain_logits(load_for_answering(tmp_path, dtype=torch.float32), IDS)
    torch.testing.assert_close(logits_NV[:, :rows], expected_NV, atol=1e-4, rtol=1e-4)
    assert not logits_NV[:, rows:].any()


@pytest.mark.parametrize(("form", "group"), [("int8", 64), ("fp8", 64), ("int4", 32), ("int4", 64)])
def test_quantised_shares_are_the_wholes_codes(form: Form, group: int, tmp_path: Path) -> None:
    save_quantised(
        tiny_decoder("gpt_neox", width=2 * group, head_dim=group, inner=4 * group), tmp_path, form, group=group
    )
    config, whole = load_config(tmp_path), load_for_answering(tmp_path, dtype=torch.float32)
    for name in ("qkv", "up", "out", "down"):
        exact = getattr(whole.blocks[1], name).quantised.dequantize()
        shares = [load_share(tmp_path, config, Share(rank, 2), dtype=torch.float32) for rank in range(2)]
        parts = [getattr(share.blocks[1], name).quantised for share in shares]
        assert {part.form for part in parts} == {form}
        found = [part.dequantize() for part in parts]
        if name in ("out", "down"):
            assert torch.equal(torch.cat(found, 1), exact)
        elif name == "up":
            assert torch.equal(torch.cat(found), exact)
        else:
            assert torch.equal(torch.cat([part.unflatten(0, (3, -1)) for part in found], 1).flatten(0, 1), exact)


def numbers(decoder: Decoder) -> int:
    return sum(parameter.numel() for parameter in decoder.parameters())


def test_a_share_is_a_part(stored: tuple[Path, int]) -> None:
    folder, count = stored
    config = load_config(folder)
    shares = [load_share(folder, config, Share(rank, count), dtype=torch.bfloat16) for rank in range(count)]
    whole = load_decoder(folder)
    small = sum(parameter.numel() for parameter in whole.parameters() if parameter.dim() == 1)
    filled = config.shared(count).vocab_rows * count - config.vocab_rows
    for share in shares:
        assert share.dtype == torch.bfloat16
        assert numbers(share) <= (numbers(whole) + 2 * filled * config.width) / count + small
        assert numbers(share) == share.config.parameter_count


def test_refused_counts() -> None:
    config = tiny_decoder("llama", heads=4, kv_heads=2, head_dim=8, rotary_dims=8).config
    with pytest.raises(UsageError, match=r"4 processes or GPUs .* 4 heads, 2 heads of keys and values.*Take 1 or 2\."):
        config.shared(4)
    with pytest.raises(UsageError, match="3 processes"):
        config.shared(3)


def test_shares_that_would_cut_groups_are_refused(tmp_path: Path) -> None:
    save_quantised(tiny_decoder("gpt_neox"), tmp_path, "int4", group=32)
    with pytest.raises(UsageError, match=r"2 processes or GPUs would cut groups of 32 .* 16 columns .*--format int8"):
        load_share(tmp_path, load_config(tmp_path), Share(0, 2), dtype=torch.float32)


def test_adapters_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="is an adapter"):
        load_share(tmp_path, tiny_decoder("gpt_neox").config, Share(0, 2), dtype=torch.float32)
