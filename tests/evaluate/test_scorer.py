"""Questions scored by the small base, against the harness's own model class on the same questions."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM

from harness_tasks import AT_HAND, Rows, as_on_the_hub, compiled_templates, harness_task, read_jsonl, write_jsonl
from roslin.answer import Roslin
from roslin.engine import ScoreRow, score
from roslin.errors import InputError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.rows import load_questions
from roslin.evaluate.scorer import ChoiceScore, RoslinScorer
from roslin.evaluate.store import Identity, Run, Store
from roslin.evaluate.tasks import TASKS
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox, tiny_llama

pytestmark = pytest.mark.filterwarnings("ignore:This model's tokenizer has neither")

SOME, MANY = 10, 150
IN_FP32 = {SOME: {"abs": 1e-4}, MANY: {"abs": 1e-4, "rel": 1e-6}}
"""Sums of 300 nats, which are among the many, need the second: both sides are as far from what float64 finds."""
HELLASWAG: Rows = [
    {
        "ind": number,
        "activity_label": "Baking cookies",
        "ctx_a": f"[header] How to bake [title] Take {number} bowls.  Fill them.",
        "ctx_b": "she",
        "ctx": "",
        "endings": ["mixes flour and  sugar.", "sings [step] a song.", "mixes flour and water.", "leaves."],
        "label": str(number % 4),
    }
    for number in range(12)
]


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Roslin:
    return Roslin.load(str(base_folder), dtype="float32")


@pytest.fixture(scope="module")
def hf_base(base_folder: Path) -> HFLM:
    return HFLM(str(base_folder), dtype="float32", device="cpu", batch_size=8)


@pytest.fixture(scope="module", autouse=True)
def _fast_harness() -> Iterator[None]:
    with compiled_templates():
        yield


def scorer(model: Roslin, **how: Any) -> RoslinScorer:
    return RoslinScorer(model, name="mine", fingerprint="weights", **how)


def in_order(found: Iterator[tuple[int, list[ChoiceScore]]]) -> list[list[ChoiceScore]]:
    return [scores for _, scores in sorted(found, key=lambda pair: pair[0])]


def log_likelihoods(found: Iterator[tuple[int, list[ChoiceScore]]]) -> list[list[float]]:
    return [[choice.log_likelihood for choice in scores] for scores in in_order(found)]


def asked_by_the_harness(model: HFLM, name: str, rows: Rows) -> tuple[list[list[float]], dict[str, float]]:
    """The log-likelihoods by question, and the accuracies by metric."""
    task = harness_task(name, rows)
    task.set_config("num_fewshot", 0)
    found = evaluate(model, {"tasks": {name: task}, "groups": {}, "group_map": {}}, log_samples=False)
    by_place = sorted(task.instances, key=lambda request: (request.doc_id, request.idx))
    groups = groupby(by_place, key=lambda request: request.doc_id)
    results = found["results"][name]
    accuracies = {metric: results[f"{metric},none"] for metric in ("acc", "acc_norm") if f"{metric},none" in results}
    return [[request.resps[0][0] for request in group] for _, group in groups], accuracies


def kept(folder: Path, name: str, questions: list[Question], scores: list[list[ChoiceScore]]) -> Run:
    run = Store(folder / "results.sqlite").run(Identity("weights", "raw", 0, "float32", "code"), "mine")
    run.ask(name, questions)
    run.add(name, zip(questions, scores, strict=True))
    return run


def check_against_the_harness(
    base: Roslin, hf_base: HFLM, name: str, rows: Rows, folder: Path, bound: dict[str, float]
) -> None:
    write_jsonl(folder / f"{name}_{TASKS[name].split}.jsonl", rows)
    questions = load_questions(TASKS[name], folder)
    scores = in_order(scorer(base).score(questions))
    theirs, accuracies = asked_by_the_harness(hf_base, name, rows)
    for mine, oracle in zip(scores, theirs, strict=True):
        assert [found.log_likelihood for found in mine] == pytest.approx(oracle, **bound)
    run = kept(folder, name, questions, scores)
    assert {metric: run.scores(name, metric).accuracy for metric in accuracies} == pytest.approx(accuracies)


@pytest.mark.parametrize("count", [SOME, pytest.param(MANY, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", AT_HAND)
def test_scores_are_the_harness_s(
    base: Roslin, hf_base: HFLM, name: str, count: int, shared_data: Path, tmp_path: Path
) -> None:
    rows = read_jsonl(shared_data / "benchmarks" / f"{AT_HAND[name]}.jsonl")
    some = [as_on_the_hub(name, row) for row in rows[:: len(rows) // count][:count]]
    check_against_the_harness(base, hf_base, name, some, tmp_path, IN_FP32[count])


def test_scores_of_hellaswag_are_the_harness_s(base: Roslin, hf_base: HFLM, tmp_path: Path) -> None:
    check_against_the_harness(base, hf_base, "hellaswag", HELLASWAG, tmp_path, IN_FP32[SOME])


def questions_of_every_form(folder: Path) -> list[Question]:
    """Shared contexts, shared continuations, twins, and one long context."""
    write_jsonl(folder / "hellaswag_validation.jsonl", HELLASWAG)
    twins = [
        Question(tuple(Choice(f"The cat saw the dog and {who}", f" {how}.", 4) for who in ("it", "he")), 0)
        for how in ("ran away", "ran home")
    ]
    long = Question(tuple(Choice("A word. " * 150 + "Is it so?", end, 2) for end in (" no", " yes")), 0)
    return [*load_questions(TASKS["hellaswag"], folder), *twins, long]


@pytest.mark.parametrize("tokens", [1, 200, 4096])
def test_scores_do_not_depend_on_the_size_of_a_pass(base: Roslin, tokens: int, tmp_path: Path) -> None:
    questions = questions_of_every_form(tmp_path)
    alone = [found for question in questions for found in log_likelihoods(scorer(base).score([question]))]
    together = log_likelihoods(scorer(base, tokens_per_pass=tokens).score(questions))
    for mine, expected in zip(together, alone, strict=True):
        assert mine == pytest.approx(expected, abs=1e-4)


def test_a_context_that_is_too_long_loses_its_beginning_as_in_the_harness(base_folder: Path, tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path, tokenizer=base_folder, vocab_size=8192, max_position_embeddings=32)
    model = Roslin.load(str(tmp_path), dtype="float32")
    theirs = HFLM(str(tmp_path), dtype="float32", device="cpu", batch_size=2)
    long, short = "one two three four five six seven eight nine ten " * 4, "one two"
    question = Question(tuple(Choice(context, " eleven twelve", 14) for context in (long, short)), 0)
    [[cut, whole]] = in_order(scorer(model).score([question]))
    assert (cut.truncated, whole.truncated) == (True, False)
    requests = [(choice.context, choice.continuation) for choice in question.choices]
    encoded = [(request, *theirs._encode_pair(*request)) for request in requests]
    oracle = [found for found, _ in theirs._loglikelihood_tokens(encoded, disable_tqdm=True)]
    assert [cut.log_likelihood, whole.log_likelihood] == pytest.approx(oracle, abs=1e-4)


def test_a_continuation_longer_than_the_model_is_refused(base_folder: Path, tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path, tokenizer=base_folder, vocab_size=8192, max_position_embeddings=8)
    model = Roslin.load(str(tmp_path), dtype="float32")
    question = Question((Choice("one", " two" * 20, 1),), 0)
    with pytest.raises(InputError, match=r"question 1: a continuation has .* 8 positions"):
        list(scorer(model).score([question]))


def test_what_every_text_begins_with_comes_first(base_folder: Path, tmp_path: Path) -> None:
    """A llama whose tokenizer adds a token in front is scored with it, as the harness does."""
    tiny_llama(tmp_path, tokenizer=base_folder, vocab_size=8192)
    tokenizer = Tokenizer.load(tmp_path)
    tokenizer.settings |= {"bos_token": tokenizer.decode([tokenizer.eos_id]), "add_bos_token": True}
    tokenizer.save(tmp_path)
    model = Roslin.load(str(tmp_path), dtype="float32")
    [found] = log_likelihoods(scorer(model).score([Question((Choice("The cat", " sat.", 4),), 0)]))
    before = [tokenizer.eos_id, *tokenizer.encode("The cat")]
    [expected] = score(model.decoder, [ScoreRow([*before, *tokenizer.encode(" sat.")], len(before))])
    assert found == pytest.approx([sum(expected)], abs=1e-4)


def test_instruct_puts_the_question_into_the_model_s_prompt(base: Roslin) -> None:
    context = "Question: Is it so?\nAnswer:"
    answers = ("no", "yes", "  both")
    question = Question(tuple(Choice(context, f" {answer}", len(answer)) for answer in answers), 1)
    [found] = log_likelihoods(scorer(base, profile="instruct").score([question]))
    prompt = base.prompts.ids(context, None)
    rows = [ScoreRow([*prompt, *base.tokenizer.encode(answer)], len(prompt)) for answer in answers]
    assert found == pytest.approx([sum(expected) for expected in score(base.decoder, rows)], abs=1e-4)


def test_an_answer_without_text_is_named_where_nothing_of_it_is_left_to_score(base: Roslin) -> None:
    question = Question((Choice("Which?", " a", 1), Choice("Which?", " ", 0)), 0)
    assert len(log_likelihoods(scorer(base).score([question]))[0]) == 2
    with pytest.raises(InputError, match=r"1 of 2 requests have no token to score.*\n2: context 'Which\?'"):
        list(scorer(base, profile="instruct").score([question]))
