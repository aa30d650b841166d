"""A model with a draft as people name both."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Callable[..., Path]:
    """Makes folders of tiny random models with Dolly's keys, of `layers`; two tokens may be `swapped`."""

    def make(layers: int, *, keys: bool = True, swapped: tuple[str, str] | None = None) -> Path:
        folder = tmp_path_factory.mktemp(f"layers-{layers}")
        tokenizer = Tokenizer.load(base_folder)
        if keys:
            tokenizer.add_keys()
        tiny_gpt_neox(folder, vocab_size=8200, num_hidden_layers=layers)
        tokenizer.save(folder)
        if swapped:
            path = folder / "tokenizer.json"
            content = json.loads(path.read_text(encoding="utf-8"))
            ids, (one, other) = content["model"]["vocab"], swapped
            ids[one], ids[other] = ids[other], ids[one]
            path.write_text(json.dumps(content), encoding="utf-8")
        return folder

    return make


def test_a_draft_changes_no_answer(made: Callable[..., Path]) -> None:
    large, small = str(made(3)), str(made(1))
    alone, drafting = Roslin.load(large, dtype="float32"), Roslin.load(large, dtype="float32", draft=small)
    assert drafting.draft is not None
    for seed in range(3):
        how = {"seed": seed, "max_new_tokens": 60}
        expected = alone.answer("Tell me.", "Of sheep.", **how)
        assert drafting.answer("Tell me.", "Of sheep.", **how).tokens == expected.tokens
        assert "".join(drafting.stream("Tell me.", "Of sheep.", **how)) == expected.text
    questions = ["One?", "Two?", "Three?"]
    assert [a.tokens for a in drafting.answer_all(questions, seed=1, max_new_tokens=30)] == [
        a.tokens for a in alone.answer_all(questions, seed=1, max_new_tokens=30)
    ]
    assert drafting.score("Who?", "Dolly.") == alone.score("Who?", "Dolly.")


def test_a_draft_with_other_tokens_is_refused_before_the_weights_are_read(made: Callable[..., Path]) -> None:
    large, keyless = made(3), made(1, keys=False)
    (large / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"cannot guess for .*: its tokenizer has 8,\d+ tokens, that of .* 8,\d+\. A"):
        Roslin.load(str(large), draft=str(keyless))
    other = made(1, swapped=("Ġthe", "Ġof"))
    with pytest.raises(InputError, match=r"its tokenizer has 'Ġ\w+' as \d+, that of .* as \d+\. A draft model must"):
        Roslin.load(str(large), draft=str(other))


def test_a_draft_that_is_not_there_is_named(made: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="No model 'nowhere'"):
        Roslin.load(str(made(1)), draft="nowhere")


def test_float16_says_that_it_does_not_use_a_draft(made: Callable[..., Path]) -> None:
    large, small = str(made(2)), str(made(1))
    with pytest.warns(UserWarning, match="The draft model is not used: in float16"):
        Roslin.load(large, dtype="float16", draft=small)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Roslin.load(large, dtype="bfloat16", draft=small)
