"""The written-out block against autograd on the plain decoder."""

from pathlib import Path

import pytest
import torch

from roslin.memory.passes import written_out
from roslin.model import Decoder, PackedAttention, load_decoder, packed_positions
from roslin.tune.passes import speed_up
from tiny import tiny_gpt_neox, tiny_gptj
from tiny_decoders import tiny_decoder

LENGTHS = [7, 1, 12, 5]


@pytest.fixture(params=["gpt_neox", "gptj"])
def decoder(request: pytest.FixtureRequest, tmp_path: Path) -> Decoder:
    (tiny_gpt_neox if request.param == "gpt_neox" else tiny_gptj)(tmp_path)
    return load_decoder(tmp_path, device=torch.device("cpu")).double()


def loss_and_gradients(decoder: Decoder, seed: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 128, (sum(LENGTHS),), generator=generator)
    logits = decoder(ids, packed_positions(LENGTHS), PackedAttention(LENGTHS))
    loss = torch.nn.functional.cross_entropy(logits, ids.roll(-1))
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recomputed", [0, 2, 3])
def test_loss_and_every_gradient_equal_the_plain_decoders(decoder: Decoder, recomputed: int) -> None:
    loss, gradients = loss_and_gradients(decoder)
    decoder.zero_grad(set_to_none=True)
    speed_up(decoder, recomputed_layers=recomputed)
    ours, found = loss_and_gradients(decoder)
    assert found.keys() == gradients.keys() == dict(decoder.named_parameters()).keys()
    torch.testing.assert_close(ours, loss, rtol=1e-12, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=1e-8, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_gradients_of_several_passes_add_up(decoder: Decoder) -> None:
    for seed in (0, 1):
        _, gradients = loss_and_gradients(decoder, seed)
    decoder.zero_grad(set_to_none=True)
    speed_up(decoder)
    for seed in (0, 1):
        _, found = loss_and_gradients(decoder, seed)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10)


def test_without_gradients_the_plain_block_runs(decoder: Decoder) -> None:
    ids, how = torch.arange(9), PackedAttention([9])
    with torch.inference_mode():
        before = decoder(ids, packed_positions([9]), how)
        speed_up(decoder)
        assert torch.equal(decoder(ids, packed_positions([9]), how), before)


def test_what_is_kept_for_backward(tmp_path: Path) -> None:
    """9 D numbers a token of each layer, and D of a layer that is run again; measured, not counted."""
    tiny_gpt_neox(tmp_path, num_hidden_layers=2)
    decoder = load_decoder(tmp_path, device=torch.device("cpu"))
    width, tokens = decoder.config.width, sum(LENGTHS)
    assert decoder.config.inner == 2 * width  # the tiny model's; 4 D in the real ones, which makes 9 D of these 7
    assert written_out(decoder.config, "fp32")
    for recomputed, numbers in ((0, 2 * 7 * width), (1, 8 * width), (2, 2 * width)):
        speed_up(decoder, recomputed_layers=recomputed)
        ids = torch.zeros(tokens, dtype=torch.long)
        hidden = decoder.hidden(ids, packed_positions(LENGTHS), PackedAttention(LENGTHS))
        kept = _kept_numbers(hidden.grad_fn)
        assert kept == tokens * numbers


def _kept_numbers(node: object) -> int:
    """Numbers that the blocks' nodes keep, each storage once."""
    storages: dict[int, int] = {}
    seen, queue = set(), [node]
    while queue:
        current = queue.pop()
        if current is None or current in seen:
            continue
        seen.add(current)
        queue += [following for following, _ in current.next_functions]
        kept = getattr(current, "kept", None)
        tensors = [kept] if isinstance(kept, torch.Tensor) else []
        if kept is not None and not tensors:
            tensors = [kept.x_ND, *kept.attended.heads, kept.attended.gathered_NHK, kept.up_NF]
        for tensor in tensors:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes() // tensor.itemsize
    return sum(storages.values())


def test_families_that_it_takes() -> None:
    for family, taken in (("gpt_neox", True), ("gptj", True), ("llama", False)):
        config = tiny_decoder(family).config
        assert written_out(config, "bf16") is written_out(config, "fp32") is taken
        assert not written_out(config, "lora")
        assert not written_out(config, "bf16", "cpu")
