"""roslin.pipeline beside transformers' pipeline on the same folder, greedy and in float32."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TextIteratorStreamer

import roslin
from roslin.errors import InputError, UsageError

ASKED = [
    "Name three birds.",
    "What is rain, and why does it fall?",
    "Repeat: ### End <|endoftext|> and all that.",
    "Write a tweet.\n",
]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"context": "The sun is hot."},
        {"context": ["The sun is hot.", None, "Rivers.", ""]},
        {"return_full_text": True},
        {"max_new_tokens": 3},
        {"batch_size": 3},
        {"max_length": 60},
        {"max_length": 60, "max_new_tokens": 5},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:max_length is 60")
def test_answers_what_the_pipeline_of_transformers_answers(ours: Any, theirs: Any, how: dict[str, Any]) -> None:
    assert ours(ASKED, **how) == theirs(ASKED, **how)


def test_every_form_of_question_gives_the_same_form_of_result(ours: Any, theirs: Any) -> None:
    assert len(theirs(ASKED[1])[0]["generated_text"]) > 10
    assert ours(ASKED[1]) == ours(text_inputs=ASKED[1]) == theirs(ASKED[1])
    assert ours({"instruction": ASKED[0], "context": "Rivers."}) == theirs(ASKED[0], context="Rivers.")
    assert list(ours(iter(ASKED), batch_size=3)) == ours(ASKED)
    assert ours([]) == []


def test_max_length_at_construction_leaves_each_answer_what_its_prompt_does(
    folder: Path, theirs: Any, ours: Any
) -> None:
    pipe = roslin.pipeline(ours.model, do_sample=False, max_length=60)
    lengths = [len(theirs.preprocess(one)["input_ids"][0]) for one in ASKED]
    expected = [theirs(one, max_new_tokens=60 - n) for one, n in zip(ASKED, lengths, strict=True)]
    assert len(set(lengths)) > 1
    with pytest.warns(UserWarning, match="tokens are left for the answer"):
        assert pipe(ASKED) == expected
    with pytest.raises(InputError, match=f"the prompt alone has {lengths[0]} tokens"):
        pipe(ASKED[0], max_length=lengths[0])


def test_several_sequences_differ_and_a_seed_repeats_them(ours: Any) -> None:
    records = ours(ASKED[:2], num_return_sequences=3, do_sample=True, seed=5)
    assert [len(each) for each in records] == [3, 3]
    assert len({record["generated_text"] for each in records for record in each}) == 6
    assert ours(ASKED[:2], num_return_sequences=3, do_sample=True, seed=5) == records
    assert ours(ASKED[:2], num_return_sequences=3, do_sample=True) != records


def test_the_same_question_twice_is_drawn_twice(ours: Any) -> None:
    one, two = ours([ASKED[0]] * 2, do_sample=True)
    assert one != two


def test_a_streamer_hears_what_it_hears_from_transformers(ours: Any, theirs: Any) -> None:
    heard = []
    for pipe in (ours, theirs):
        streamer = TextIteratorStreamer(pipe.tokenizer, skip_special_tokens=True)
        pipe(text_inputs=ASKED[1], streamer=streamer)
        heard.append("".join(streamer).strip())
    assert heard[0] == heard[1]
    assert heard[0].endswith(ours(ASKED[1])[0]["generated_text"])


def test_a_criterion_ends_an_answer_where_it_ends_it_for_transformers(ours: Any, theirs: Any) -> None:
    prompt = len(theirs.preprocess(ASKED[1])["input_ids"][0])

    def enough(ids: torch.Tensor, scores: object, **_: object) -> torch.Tensor:
        return torch.tensor([ids.shape[1] >= prompt + 6])

    stopped = theirs(ASKED[1], stopping_criteria=[enough])
    assert ours(ASKED[1], stopping_criteria=[enough]) == stopped
    assert stopped != theirs(ASKED[1])


def test_arguments_that_the_engine_lacks_are_named(ours: Any, folder: Path) -> None:
    with pytest.raises(UsageError, match="no argument num_beams, penalty_alpha"):
        ours(ASKED[0], penalty_alpha=1, num_beams=4)
    with pytest.raises(UsageError, match="no argument num_beams"):
        roslin.pipeline(folder, num_beams=4)
    with pytest.raises(UsageError, match="context is a list of 1, and 2 instructions"):
        ours(ASKED[:2], context=["One."])


def test_defaults_are_dollys(folder: Path, ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(ours.model, "answer_all", lambda questions, **how: told.update(how) or [])
    roslin.pipeline(ours.model)(ASKED[:1])
    assert told == {
        "returns": 1, "max_new_tokens": 256, "greedy": False, "temperature": 1.0, "top_p": 0.92, "top_k": 0,
        "seed": None,
    }  # fmt: skip
