"""The rows of embedding and head: kept, set to the mean of the used ones, grown."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from roslin.model import Decoder, fit_vocabulary, load_decoder, packed_positions, save_decoder
from roslin.model.attention import PackedAttention
from tiny import tiny_gpt_neox, tiny_gptj

Maker = Callable[..., PreTrainedModel]
BOTH = pytest.mark.parametrize("maker", [tiny_gpt_neox, tiny_gptj])


def vocabulary_weights(decoder: Decoder) -> list[torch.Tensor]:
    weights = [decoder.embedding.weight, decoder.head.weight]
    weights += [decoder.head.bias] if decoder.config.head_bias else []
    return [weight.detach().clone() for weight in weights]


@BOTH
def test_new_keys_in_padded_rows_take_the_mean_and_all_else_stays(tmp_path: Path, maker: Maker) -> None:
    maker(tmp_path, vocab_size=131)
    decoder = load_decoder(tmp_path)
    before = vocabulary_weights(decoder)
    fit_vocabulary(decoder, 103, [100, 101, 102], "mean")
    assert decoder.config.vocab_rows == 131
    for old, new in zip(before, vocabulary_weights(decoder), strict=True):
        for row in (100, 101, 102):
            torch.testing.assert_close(new[row], old[:100].mean(0))
        untouched = [row for row in range(131) if row not in (100, 101, 102)]
        assert torch.equal(new[untouched], old[untouched])


@BOTH
def test_keep_leaves_rows_that_are_there(tmp_path: Path, maker: Maker) -> None:
    maker(tmp_path, vocab_size=131)
    decoder = load_decoder(tmp_path)
    before = vocabulary_weights(decoder)
    fit_vocabulary(decoder, 103, [100, 101, 102], "keep")
    for old, new in zip(before, vocabulary_weights(decoder), strict=True):
        assert torch.equal(old, new)


@BOTH
@pytest.mark.parametrize("init", ["mean", "keep"])
def test_too_few_rows_grow_to_a_multiple_of_64_with_the_mean(tmp_path: Path, maker: Maker, init: str) -> None:
    maker(tmp_path / "from", vocab_size=101)
    decoder = load_decoder(tmp_path / "from")
    before = vocabulary_weights(decoder)
    fit_vocabulary(decoder, 103, [100, 101, 102], init)  # type: ignore[arg-type]
    assert decoder.config.vocab_rows == 128
    for old, new in zip(before, vocabulary_weights(decoder), strict=True):
        assert len(new) == 128
        assert torch.equal(new[:100], old[:100])
        mean = old[:100].mean(0)
        assert torch.equal(new[100], old[100]) == (init == "keep")
        torch.testing.assert_close(new[101:], mean.expand(27, *mean.shape))
    logits_NV = decoder(torch.tensor([3, 102]), packed_positions([2]), PackedAttention([2]))
    assert logits_NV.shape == (2, 128)

    (tmp_path / "to").mkdir()
    save_decoder(decoder, tmp_path / "to")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "to")(torch.tensor([[3, 102]])).logits[0]
    torch.testing.assert_close(logits_NV, theirs, rtol=1e-5, atol=1e-4)


@BOTH
def test_a_tied_head_stays_tied(tmp_path: Path, maker: Maker) -> None:
    maker(tmp_path, vocab_size=100, tie_word_embeddings=True)
    decoder = load_decoder(tmp_path)
    fit_vocabulary(decoder, 103, [100, 101, 102], "mean")
    assert decoder.head.weight is decoder.embedding.weight
    assert decoder.embedding.weight.shape == (128, 48)


def test_a_tokenizer_that_fits_changes_nothing(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    decoder = load_decoder(tmp_path)
    before = vocabulary_weights(decoder)
    fit_vocabulary(decoder, 120, [], "mean")
    assert all(torch.equal(old, new) for old, new in zip(before, vocabulary_weights(decoder), strict=True))


def test_the_mean_of_bf16_rows_is_taken_in_fp32(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path, dtype=torch.bfloat16, vocab_size=131)
    decoder = load_decoder(tmp_path)
    exact = decoder.embedding.weight.detach()[:100].double().mean(0)
    fit_vocabulary(decoder, 103, [100, 101, 102], "mean")
    assert decoder.embedding.weight.dtype == torch.bfloat16
    assert torch.equal(decoder.embedding.weight[101], exact.float().bfloat16())


def test_grown_rows_can_be_trained(base_folder: Path) -> None:
    decoder = load_decoder(base_folder, dtype=torch.float32)
    fit_vocabulary(decoder, 8195, [8192, 8193, 8194], "mean")
    assert decoder.config.vocab_rows == 8256
    decoder(torch.tensor([8192, 8194]), packed_positions([2]), PackedAttention([2])).sum().backward()
    gradient = decoder.embedding.weight.grad
    assert gradient is not None
    assert gradient[[8192, 8194]].abs().sum(1).gt(0).all()
    assert not gradient[8193].any()
