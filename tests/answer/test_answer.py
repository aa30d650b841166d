"""Asking: one, several, streamed, many, scored; on a real tiny model, and on one that says what it is told to."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from roslin.answer import Roslin
from roslin.engine import FusedDecoder, ScoreRow, score
from roslin.engine.cpu.decoder import KernelDecoder
from roslin.errors import InputError, MachineError, UsageError
from roslin.records.record import Record
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox
from tiny_decoders import tiny_decoder

Reciting = Callable[[str], Roslin]


@pytest.fixture(scope="module")
def model(base_folder: Path) -> Roslin:
    """Random weights behind the base's tokenizer with Dolly's keys."""
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    return Roslin(tiny_decoder("gpt_neox", vocab_rows=tokenizer.size + 5), tokenizer, max_batch=3)


def test_an_answer_ends_at_the_end_key_and_is_stripped(reciting: Reciting) -> None:
    answer = reciting("\n A sheep. \n\n").answer("Who was Dolly?", greedy=True)
    assert answer.text == "A sheep."
    assert answer.finish_reason == "stop"
    assert answer.logprobs is None
    assert answer.timings.tokens == len(answer.tokens) + 1


def test_an_answer_that_is_cut_says_so(reciting: Reciting) -> None:
    answer = reciting("one two three four").answer("Count.", max_new_tokens=2, greedy=True)
    assert (answer.finish_reason, len(answer.tokens)) == ("length", 2)
    assert "one two three four".startswith(answer.text)


@pytest.mark.parametrize("stop", ["ree f", ["nothing", "ree f"]])
def test_a_stop_string_across_tokens_ends_an_answer_and_is_not_in_it(reciting: Reciting, stop: str | list[str]) -> None:
    model = reciting("one two three four five")
    stream = model.stream("Count.", stop=stop, greedy=True)
    assert "".join(stream) == "one two th"
    for answer in (stream.whole(), model.answer("Count.", stop=stop, greedy=True)):
        assert (answer.text, answer.finish_reason) == ("one two th", "stop")
    assert not model._desk._engine.busy


def test_a_stop_string_that_never_comes_gives_its_beginning_back(reciting: Reciting) -> None:
    stream = reciting("one two").stream("Count.", stop="two three", greedy=True)
    assert "".join(stream) == stream.whole().text == "one two"


def test_a_stream_can_be_closed(reciting: Reciting) -> None:
    model = reciting("one two three four five six")
    stream = model.stream("Count.", greedy=True)
    first = next(stream)
    stream.close()
    assert list(stream) == []
    assert stream.whole().finish_reason == "cancelled"
    assert stream.whole().text.startswith(first)
    assert not model._desk._engine.busy


def test_streaming_and_waiting_give_the_same_answer(model: Roslin) -> None:
    for seed in range(5):
        stream = model.stream("Tell me.", "A context.", seed=seed, max_new_tokens=40)
        pieces = list(stream)
        answer = model.answer("Tell me.", "A context.", seed=seed, max_new_tokens=40)
        assert "".join(pieces) == stream.whole().text == answer.text
        assert "" not in pieces
        assert stream.whole().tokens == answer.tokens


def test_many_questions_are_answered_in_order_as_if_asked_alone(model: Roslin) -> None:
    questions = ["One?", ("Two?", "Some."), Record(instruction="Three?", response="-"), {"instruction": "Four?"}]
    together = model.answer_all([*questions, {"instruction": "Five?", "context": "More."}], seed=3, max_new_tokens=30)
    asked = [("One?", None), ("Two?", "Some."), ("Three?", None), ("Four?", None), ("Five?", "More.")]
    alone = [model.answer(*question, seed=3, max_new_tokens=30) for question in asked]
    assert [a.tokens for a in together] == [a.tokens for a in alone]
    assert model.answer_all([]) == []


def test_several_answers_differ_and_repeat_by_seed(model: Roslin) -> None:
    first = model.answer("Tell me.", returns=4, max_new_tokens=20)
    assert isinstance(first, list)
    assert len({a.tokens for a in first}) == 4
    [seed] = {a.seed for a in first}
    again = model.answer("Tell me.", returns=4, max_new_tokens=20, seed=seed)
    assert isinstance(again, list)
    assert [a.tokens for a in again] == [a.tokens for a in first]
    assert model.answer("Tell me.", max_new_tokens=20, seed=seed).tokens == first[0].tokens


def test_log_probabilities_of_tokens_and_alternatives(model: Roslin) -> None:
    how: dict[str, Any] = {"seed": 1, "max_new_tokens": 8, "temperature": 0.5, "top_p": 0.5}
    answer, plain = model.answer("Tell me.", logprobs=2, **how), model.answer("Tell me.", logprobs=True, **how)
    assert answer.logprobs is not None
    assert plain.logprobs is not None
    assert tuple(t.id for t in answer.logprobs) == answer.tokens
    assert all(len(t.top) == 2 and t.top[0].logprob >= t.top[1].logprob for t in answer.logprobs)
    assert [t.logprob for t in plain.logprobs] == [t.logprob for t in answer.logprobs]
    assert all(t.top == () for t in plain.logprobs)
    # The model's own, whatever the temperature: the score of the same tokens.
    ids = [*model.prompts.ids("Tell me.", None), *answer.tokens]
    [found] = score(model.decoder, [ScoreRow(ids, len(ids) - 8)])
    assert found == pytest.approx([t.logprob for t in answer.logprobs], abs=1e-4)


def test_a_score_is_the_sum_over_the_response_and_its_end(model: Roslin) -> None:
    found = model.score("Tell me.", "A tale.", "Once.")
    example = model.tokenizer.example(Record(instruction="Tell me.", context="Once.", response="A tale."))
    [logprobs] = score(model.decoder, [ScoreRow(example.ids, example.answer_start)])
    assert found.tokens == example.answer_count == len(logprobs)
    assert found.log_likelihood == pytest.approx(sum(logprobs))
    assert found.loss == -found.log_likelihood / found.tokens
    for response, said in [(" ", "response is empty"), ("\ud800", "response is not valid Unicode")]:
        with pytest.raises(InputError, match=said):
            model.score("Tell me.", response)


def test_every_bad_question_is_listed(model: Roslin) -> None:
    questions: list[Any] = ["fine", "", ("  ", None), {"context": "x"}, ("fine", 3), "\ud800"]
    with pytest.raises(InputError) as error:
        model.answer_all(questions)
    assert [line[:11] for line in str(error.value).splitlines()] == [f"Question {n}:" for n in range(2, 7)]


BAD: list[dict[str, Any]] = [{"returns": 0}, {"stop": ""}, {"stop": ["a", ""]}, {"temperature": -1}, {"top_p": 0}]
BAD += [{"max_new_tokens": 0}, {"max_new_tokens": 400}, {"top_k": -1}, {"logprobs": -3}]


def test_bad_settings_are_all_said_once_however_many_questions_there_are(model: Roslin) -> None:
    with pytest.raises(InputError) as error:
        model.answer_all(["One?", "Two?", "Three?"], max_new_tokens=0, top_p=2, stop=["", "x"], logprobs=-1)
    for said in ("max_new_tokens is 0", "top_p is 2", "stop string is empty", "logprobs is -1"):
        assert str(error.value).count(said) == 1


def test_a_question_that_is_too_long_is_named_once_however_many_answers_are_wanted(model: Roslin) -> None:
    with pytest.raises(InputError, match=r"^Question 2: .* and the model has 400 positions; shorten[^\n]*$"):
        model.answer_all(["One?", "two " * 400], max_new_tokens=5)
    with pytest.raises(InputError, match=r"^The question: .* and the model has 400 positions; shorten[^\n]*$"):
        model.answer("two " * 400, returns=3, max_new_tokens=5)


@pytest.mark.parametrize("settings", BAD)
def test_bad_settings_are_refused(model: Roslin, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        model.answer("Tell me.", **settings)
    assert not model._desk._engine.busy


def test_keys_inside_an_instruction_are_plain_text(model: Roslin) -> None:
    ids = model.prompts.ids("Say ### End and <|endoftext|>", None)
    assert not set(ids) & {model.tokenizer.end_id, model.tokenizer.eos_id}


def test_a_model_in_memory_is_asked_as_it_is_now(base_folder: Path) -> None:
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    decoder = tiny_decoder("gpt_neox", vocab_rows=tokenizer.size)
    model = Roslin(decoder, tokenizer)
    before = model.answer("Tell me.", greedy=True, max_new_tokens=10)
    decoder.head.weight.data.neg_()
    assert model.answer("Tell me.", greedy=True, max_new_tokens=10).tokens != before.tokens


@pytest.fixture
def untuned(tmp_path: Path, base_folder: Path) -> str:
    """A folder whose tokenizer has neither the keys nor a chat template."""
    tiny_gpt_neox(tmp_path, vocab_size=8192)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((base_folder / name).read_bytes())
    return str(tmp_path)


def test_a_model_that_was_not_tuned_is_asked_all_the_same_and_this_is_said(untuned: str) -> None:
    with pytest.warns(UserWarning, match="not tuned"):
        model = Roslin.load(untuned)
    assert len(model.answer("Hello", seed=1, max_new_tokens=5).tokens) <= 5
    assert model.score("Hello", "Hi.").tokens > 3


def test_prompts_beyond_the_positions_need_a_rope_scaling() -> None:
    question = "Which of these words is a bird? " + "river stone " * 1100
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the base is not tuned
        plain, stretched = (Roslin.load("base", rope_scaling=scaling) for scaling in (None, "dynamic:2"))
    with pytest.raises(InputError, match=r"the model has 2048 positions; .*rope scaling"):
        plain.answer(question, max_new_tokens=3)
    assert len(stretched.answer(question, max_new_tokens=3, greedy=True).tokens) <= 3
    assert (
        stretched.answer("Hello", max_new_tokens=9, greedy=True).tokens
        == plain.answer("Hello", max_new_tokens=9, greedy=True).tokens
    )
    with pytest.raises(UsageError, match="linear, dynamic, yarn"):
        Roslin.load("base", rope_scaling="ntk:2")


def test_loading_takes_dtype_device_and_prompt_or_says_what_is_wrong_with_them(
    untuned: str, recwarn: pytest.WarningsRecorder
) -> None:
    model = Roslin.load(untuned, prompt="dolly", dtype="bfloat16", device="cpu")
    assert isinstance(model.decoder, KernelDecoder | FusedDecoder)
    embedding = model.decoder._embedding
    weight = embedding if isinstance(embedding, torch.Tensor) else embedding.weight
    assert model.dtype == weight.dtype == torch.bfloat16
    assert not recwarn.list
    with pytest.raises(InputError, match="no chat template"):
        Roslin.load(untuned, prompt="chat")
    with pytest.raises(UsageError, match="prompt is 'x'"):
        Roslin.load(untuned, prompt="x")
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        Roslin.load(untuned, dtype="int8")
    with pytest.raises(UsageError, match="cache is 'fp4'; it must be auto or fp8"):
        Roslin.load(untuned, cache="fp4")
    with pytest.raises(UsageError, match="device is 'toaster'"):
        Roslin.load(untuned, device="toaster")
    with pytest.raises(MachineError, match="CUDA devices"):
        Roslin.load(untuned, device=f"cuda:{torch.cuda.device_count()}")
