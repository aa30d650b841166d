"""Models of transformers in our table, against HFLM, the harness's own, on the same models."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from harness_tasks import AT_HAND, read_jsonl
from roslin.answer import Roslin
from roslin.errors import InputError, MachineError, UsageError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.scorer import ChoiceScore, RoslinScorer
from roslin.evaluate.transformers_scorer import TransformersScorer
from roslin.model.fingerprint import fingerprint


def question(*pairs: tuple[str, str]) -> Question:
    return Question(tuple(Choice(context, continuation, len(continuation)) for context, continuation in pairs), 0)


HAND_MADE = [
    question(("The capital of France is", " Paris"), ("The capital of France is", " London, perhaps")),
    question(("", " Hello world"), ("", "<|endoftext|>foo bar"), ("trailing blanks  ", " x")),
    question(("<|endoftext|>The cat", " sat on the mat"), ("The cat", "erpillar"), ("a line\n", "\nanother")),
    question(("word " * 60, "and the end")),
    question(("Is it so? Answer:", " yes"), ("Is it so? Answer:", " no")),
]


def scored(scorer: Any, questions: Sequence[Question]) -> list[list[ChoiceScore]]:
    found = dict(scorer.score(questions))
    assert sorted(found) == list(range(len(questions)))
    return [found[number] for number in range(len(questions))]


def log_likelihoods(scores: Sequence[Sequence[ChoiceScore]]) -> list[float]:
    return [score.log_likelihood for of_one in scores for score in of_one]


def by_hflm(model: Path, questions: Sequence[Question], **arguments: Any) -> list[float]:
    oracle = HFLM(str(model), dtype="float32", device="cpu", batch_size=8, **arguments)
    pairs = [(choice.context, choice.continuation) for asked in questions for choice in asked.choices]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    return [value for value, _ in oracle.loglikelihood(requests, disable_tqdm=True)]


def loaded(model: Path, **settings: Any) -> TransformersScorer:
    return TransformersScorer.load(str(model), dtype="float32", device="cpu", **settings)


def arc(shared_data: Path, task: str, count: int) -> list[Question]:
    """Real questions: the prompt of ARC and OpenBookQA alike is only a context and a continuation here."""
    rows = read_jsonl(shared_data / "benchmarks" / f"{AT_HAND[task]}.jsonl")[:count]
    stems = [f"Question: {row.get('question', row.get('question_stem'))}\nAnswer:" for row in rows]
    return [question(*((stem, f" {text}") for text in row["choices"])) for stem, row in zip(stems, rows, strict=True)]


def winogrande(shared_data: Path, count: int) -> list[Question]:
    """Real questions whose choices differ in the context."""
    rows = read_jsonl(shared_data / "benchmarks" / f"{AT_HAND['winogrande']}.jsonl")[:count]
    parts = [(row["sentence"].partition("_"), (row["option1"], row["option2"])) for row in rows]
    return [question(*((before + option, after) for option in options)) for (before, _, after), options in parts]


def test_hand_made_questions_are_scored_as_hflm_does(base_folder: Path) -> None:
    found = scored(loaded(base_folder), HAND_MADE)
    assert log_likelihoods(found) == pytest.approx(by_hflm(base_folder, HAND_MADE), abs=1e-4)
    assert [score.tokens for score in found[0]] == [1, 3]
    assert not any(score.truncated for of_one in found for score in of_one)


def test_real_questions_are_scored_as_hflm_does(base_folder: Path, shared_data: Path) -> None:
    questions = arc(shared_data, "arc_easy", 10) + winogrande(shared_data, 12)
    found = log_likelihoods(scored(loaded(base_folder), questions))
    assert found == pytest.approx(by_hflm(base_folder, questions), abs=1e-4)


def test_scores_do_not_depend_on_the_size_of_a_pass(base_folder: Path) -> None:
    alone, together = (log_likelihoods(scored(loaded(base_folder, tokens_per_pass=n), HAND_MADE)) for n in (1, 10**6))
    assert alone == pytest.approx(together, abs=1e-4)


@pytest.mark.filterwarnings("ignore:This model.s tokenizer has neither")
def test_it_agrees_with_roslins_own_scorer(base_folder: Path) -> None:
    mine = RoslinScorer(Roslin.load("base", dtype="float32", device="cpu"), name="base", fingerprint="")
    found = log_likelihoods(scored(loaded(base_folder), HAND_MADE[:1] + HAND_MADE[3:]))
    assert found == pytest.approx(log_likelihoods(scored(mine, HAND_MADE[:1] + HAND_MADE[3:])), abs=1e-4)


@pytest.fixture
def gpt2(tmp_path: Path, base_folder: Path) -> Path:
    """A family that Roslin does not have, with few positions and a chat template."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=8192, n_positions=32, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    shutil.copy(base_folder / "tokenizer.json", tmp_path)
    settings = json.loads((base_folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


def test_contexts_that_are_too_long_lose_their_beginning(gpt2: Path) -> None:
    scorer = loaded(gpt2)
    assert scorer.length == 32
    found = scored(scorer, HAND_MADE)
    assert log_likelihoods(found) == pytest.approx(by_hflm(gpt2, HAND_MADE), abs=1e-4)
    assert [score.truncated for of_one in found for score in of_one].count(True) == 1
    assert found[3][0].truncated
    with pytest.raises(InputError, match=r"question 2: a continuation has \d+ tokens, and the model has 32 positions"):
        next(scorer.score([HAND_MADE[0], question(("a", " b" * 40))]))


def test_instruct_questions_are_asked_in_the_chat_template(gpt2: Path, base_folder: Path) -> None:
    scorer = loaded(gpt2, profile="instruct")
    found = scored(scorer, [question(("Who?", " Me"), ("Who?", " You"))])
    plain = scored(loaded(gpt2), [question(("[user] Who?\n[assistant]", " Me"), ("[user] Who?\n[assistant]", " You"))])
    ids = scorer._rows([question(("Who?", " Me"))])[0][0]
    assert scorer._tokenizer.decode(ids.ids) == "[user] Who?\n[assistant] Me"
    assert scorer._tokenizer.decode(ids.ids[ids.start :]) == "Me"
    assert len(found[0]) == len(plain[0]) == 2
    with pytest.raises(InputError, match="no chat template"):
        loaded(base_folder, profile="instruct")


def test_names_dtype_and_fingerprint(base_folder: Path, gpt2: Path) -> None:
    scorer = loaded(base_folder)
    assert (scorer.name, scorer.dtype, scorer.profile) == (str(base_folder), "float32", "raw")
    assert scorer.fingerprint == loaded(base_folder).fingerprint
    assert scorer.fingerprint not in (fingerprint(base_folder), loaded(gpt2).fingerprint)
    assert TransformersScorer.load(str(gpt2), device="cpu").dtype == "float32"
    assert TransformersScorer.load(str(gpt2), dtype="bfloat16", device="cpu").dtype == "bfloat16"


def test_numbers_that_are_none_name_the_question(gpt2: Path) -> None:
    scorer = loaded(gpt2)
    with torch.no_grad():
        scorer._model.transformer.wte.weight[scorer._tokenizer(" Hello")["input_ids"][0]] = torch.nan
        scorer._model.lm_head = torch.nn.Linear(32, 8192, bias=False)
    questions = [question(("a", " b")), question(("Say Hello", " now"))]
    with pytest.raises(MachineError, match="question 2, 'Say Hello'"):
        list(scorer.score(questions))


def test_what_is_no_decoder_is_refused(tmp_path: Path, base_folder: Path) -> None:
    folder = tmp_path / "t5"
    config = T5Config(vocab_size=64, d_model=8, d_ff=8, d_kv=4, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    with pytest.raises(InputError, match=r"encoder-decoder \(t5\)"):
        loaded(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="transformers cannot load"):
        loaded(tmp_path / "empty")
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        TransformersScorer.load(str(base_folder), dtype="int8")


def test_code_out_of_a_folder_is_not_run(tmp_path: Path, base_folder: Path) -> None:
    values = {
        "model_type": "strange",
        "auto_map": {"AutoConfig": "config.Strange", "AutoModelForCausalLM": "config.Of"},
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "config.py").write_text("raise SystemExit('run')")
    with pytest.raises(InputError, match="trust_remote_code"):
        loaded(tmp_path)
