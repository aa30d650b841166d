"""A model judged by prompts with instructions that a program can check."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from roslin.answer import Roslin
from roslin.errors import InputError, UsageError
from roslin.evaluate.ifeval import (
    AS_PUBLISHED,
    CheckedPrompt,
    Followed,
    IfevalReport,
    Instruction,
    compare_ifeval,
    judge_ifeval,
    load_prompts,
)
from roslin.evaluate.responses import Drawing, Progress
from roslin.statistics import wilson_interval
from tiny import tiny_gpt_neox

NO_COMMA = Instruction("punctuation:no_comma", {})
SMALL = Instruction("change_case:english_lowercase", {})
SHORT = Drawing(greedy=True, max_new_tokens=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Roslin:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_gpt_neox(folder, vocab_size=8192, tokenizer=base_folder)
    return Roslin.load(str(folder), prompt="dolly")


def report(*answers: tuple[int, str], instructions: tuple[Instruction, ...] = (NO_COMMA, SMALL)) -> IfevalReport:
    followed = [Followed.of(CheckedPrompt(key, f"prompt {key}", instructions), answer) for key, answer in answers]
    return IfevalReport("tiny", "prompts.jsonl", AS_PUBLISHED, followed, [], [])


def test_shares_are_counted_by_prompt_and_by_instruction() -> None:
    found = report((1, "all well"), (2, "Well"), (3, "No, no"), (4, "first\nall well"), (5, "A Title\nall well"))
    assert [each.strict for each in found.followed] == [
        (True, True),
        (True, False),
        (False, False),
        (True, True),
        (True, False),
    ]
    assert [each.loose for each in found.followed][3:] == [(True, True), (True, True)]
    assert found.strict.prompts == wilson_interval(2, 5)
    assert found.loose.prompts == wilson_interval(3, 5)
    assert found.strict.instructions.estimate == 6 / 10
    assert found.strict.by_kind == {SMALL.kind: wilson_interval(2, 5), NO_COMMA.kind: wilson_interval(4, 5)}
    assert found.loose.instructions.estimate == 7 / 10
    told = json.loads(json.dumps(found.as_dict()))
    assert told["strict"]["prompts"]["estimate"] == 0.4
    assert told["answers"][1] == {
        "key": 2,
        "instructions": [NO_COMMA.kind, SMALL.kind],
        "strict": [True, False],
        "loose": [True, False],
        "answer": "Well",
    }


def test_a_model_is_asked_every_prompt_that_can_be_checked_and_fits(model: Roslin) -> None:
    german = Instruction("language:response_language", {"language": "de"})
    prompts = [
        *load_prompts()[:3],
        CheckedPrompt(900, "Sag etwas.", (german, NO_COMMA)),
        CheckedPrompt(901, "word " * 600, (NO_COMMA,)),
    ]
    told: list[Progress] = []
    found = judge_ifeval(model, prompts, drawing=SHORT, progress=told.append)
    assert [each.prompt for each in found.followed] == prompts[:3]
    alone = model.answer(prompts[1].prompt, greedy=True, max_new_tokens=12)
    assert found.followed[1].answer == alone.text
    assert found.unchecked == [900]
    assert found.too_long == [901]
    assert told == [Progress("answered", 3, 3)]


def test_a_model_that_can_be_asked_nothing_is_told(model: Roslin) -> None:
    with pytest.raises(
        InputError, match=r"None of the 62 prompts.*62 do not fit into the model's 512 positions with 1,280"
    ):
        judge_ifeval(model, load_prompts())


def test_two_models_are_paired_by_prompt() -> None:
    wrong = [(key, "No, no") for key in range(12)]
    right = [(key, "all well") for key in range(12)]
    found = compare_ifeval(report(*wrong, (99, "x")), report(*right, (98, "x")))
    assert found.pairs == 12
    for shift in (found.prompts["strict"], found.instructions["loose"]):
        assert (shift.before, shift.after, shift.change.estimate) == (0, 1, 1)
        assert shift.p == pytest.approx(2 * 0.5**12 / 2)  # all twelve one way: exact, half of its own chance (mid-p)
        assert shift.verdict == "higher by 100.0 points: better"
    back = compare_ifeval(report(*right), report(*wrong[:1], *right[1:]))
    assert back.prompts["strict"].verdict == "within noise"
    same = compare_ifeval(report(*right), report(*right))
    assert same.prompts["strict"].verdict == "no difference"
    assert json.loads(json.dumps(same.as_dict()))["prompts"]["loose"]["verdict"] == "no difference"


def test_what_does_not_compare_is_refused() -> None:
    one = report((1, "x"))
    with pytest.raises(UsageError, match="drawn in different ways"):
        compare_ifeval(one, replace(one, drawing=replace(AS_PUBLISHED, max_new_tokens=10)))
    with pytest.raises(InputError, match="no prompt in common"):
        compare_ifeval(one, report((1, "x"), instructions=(NO_COMMA,)))
