"""The harness's model class against HFLM, the harness's own, on the same models."""

import json
import os
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import tokenizers
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.api.registry import get_model
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers.processors import TemplateProcessing

from conftest import ROOT
from roslin import prompt
from roslin.answer import Roslin
from roslin.errors import InputError, UsageError
from roslin.evaluate.harness import TARGET, register
from roslin.evaluate.harness_generate import GenerationSettings
from roslin.evaluate.harness_model import RoslinLM
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox

PAIRS = [
    ("The capital of France is", " Paris"),
    ("The capital of France is", " London, perhaps"),
    ("The capital of France is", " Paris and nothing else"),
    ("", " Hello world"),
    ("", "<|endoftext|>foo bar"),
    ("trailing blanks  ", " x"),
    ("a line\n", "\nanother"),
    ("<|endoftext|>The cat", " sat on the mat"),
    ("The cat", "erpillar"),
    ("Once upon a time there", " was"),
    ("word " * 60, "and the end"),
]
GENERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("Once upon a time", {"until": ["."], "max_gen_toks": 16}),
    ("The history of", {"until": ["\n\n", " the", "of the"], "max_new_tokens": 24, "do_sample": False}),
    ("Q: What?\nA:", {"max_gen_toks": 12, "temperature": 0.0, "num_beams": 1}),
    ("word " * 40, {"until": "\n", "max_gen_toks": 8}),
    ("In the year", {"until": [" of a"], "max_gen_toks": 16}),
]


def instances(kind: str, arguments: Sequence[tuple[Any, ...]], docs: Sequence[int] | None = None) -> list[Instance]:
    documents = docs or range(len(arguments))
    return [Instance(kind, {}, found, 0, ("task", doc, 1)) for found, doc in zip(arguments, documents, strict=True)]


def ours(model: str | Path, **arguments: Any) -> RoslinLM:
    return RoslinLM(str(model), dtype="float32", device="cpu", **arguments)


def theirs(model: Path, **arguments: Any) -> HFLM:
    return HFLM(str(model), dtype="float32", device="cpu", batch_size=4, **arguments)


def check_loglikelihoods(mine: RoslinLM, oracle: HFLM, pairs: Sequence[tuple[str, str]]) -> None:
    asked = instances("loglikelihood", pairs)
    found = mine.loglikelihood(asked, disable_tqdm=True)
    expected = oracle.loglikelihood(asked, disable_tqdm=True)
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


@pytest.fixture(scope="module")
def base() -> RoslinLM:
    return ours("base")


@pytest.fixture(scope="module")
def hf_base(base_folder: Path) -> HFLM:
    return theirs(base_folder)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A random model with Dolly's keys as tokens."""
    folder = tmp_path_factory.mktemp("keyed")
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    tiny_gpt_neox(folder, vocab_size=tokenizer.size)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A random model whose tokenizer puts a token of its own in front of every text, and has a chat template."""
    folder = tmp_path_factory.mktemp("begun")
    tiny_gpt_neox(folder, vocab_size=8200)
    backend = tokenizers.Tokenizer.from_file(str(base_folder / "tokenizer.json"))
    backend.add_special_tokens(["<s>", "<|turn|>"])
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    backend.save(str(folder / "tokenizer.json"))
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|turn|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n{% endif %}"
    )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_log_likelihoods_are_hflms(base: RoslinLM, hf_base: HFLM) -> None:
    check_loglikelihoods(base, hf_base, PAIRS)


def test_a_continuation_that_the_model_would_write_is_greedy(base: RoslinLM, hf_base: HFLM) -> None:
    asked = instances("generate_until", [("Once upon a time", {"max_gen_toks": 4})])
    [text] = hf_base.generate_until(asked, disable_tqdm=True)
    pairs = [("Once upon a time", text), ("Once upon a time", f"{text} zebra")]
    assert [greedy for _, greedy in base.loglikelihood(instances("loglikelihood", pairs))] == [True, False]
    check_loglikelihoods(base, hf_base, pairs)


def test_contexts_that_are_too_long_lose_their_beginning(base_folder: Path) -> None:
    check_loglikelihoods(ours("base", max_length=12), theirs(base_folder, max_length=12), PAIRS)


def test_a_continuation_longer_than_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"request 2: a continuation has \d+ tokens, and the model has 4 positions"):
        ours("base", max_length=4).loglikelihood(instances("loglikelihood", [("a", " b"), ("a", " b" * 9)]))


def test_a_continuation_without_tokens_is_refused(base: RoslinLM) -> None:
    with pytest.raises(InputError, match="2 of 3 requests have no token"):
        base.loglikelihood(instances("loglikelihood", [("a", ""), ("a", " b"), ("", "")]))


def test_scores_depend_neither_on_grouping_nor_on_batch_size(base: RoslinLM) -> None:
    alone = base.loglikelihood(instances("loglikelihood", PAIRS))
    one_document = base.loglikelihood(instances("loglikelihood", PAIRS, docs=[7] * len(PAIRS)))
    backwards = ours("base", batch_size=64).loglikelihood(instances("loglikelihood", PAIRS[::-1]))[::-1]
    no_documents = base.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS])
    expected = [value for value, _ in alone]
    for other in (one_document, backwards, no_documents):
        assert [value for value, _ in other] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"prefix_token_id": 77}])
def test_beginnings_of_texts_are_hflms(begun: Path, arguments: dict[str, Any]) -> None:
    mine, oracle = ours(begun, **arguments), theirs(begun, **arguments)
    assert mine.prefix_token_id == oracle.prefix_token_id
    check_loglikelihoods(mine, oracle, [*PAIRS, ("<s>marked", " twice"), ("", "<s> once")])
    rolling = instances("loglikelihood_rolling", [("a text",), ("<s>another",)])
    assert mine.loglikelihood_rolling(rolling) == pytest.approx(oracle.loglikelihood_rolling(rolling), abs=1e-4)


@pytest.mark.parametrize("length", [None, 16])
def test_rolling_log_likelihoods_are_hflms(base_folder: Path, length: int | None) -> None:
    texts = ["The quick brown fox jumps over the lazy dog. " * 8, "", "x", "one two three", "word " * 33]
    asked = instances("loglikelihood_rolling", [(text,) for text in texts])
    found = ours("base", max_length=length).loglikelihood_rolling(asked)
    assert found == pytest.approx(theirs(base_folder, max_length=length).loglikelihood_rolling(asked), rel=1e-5)


@pytest.mark.parametrize("length", [None, 40])
def test_greedy_answers_are_hflms(base_folder: Path, length: int | None) -> None:
    asked = instances("generate_until", GENERATIONS)
    found = ours("base", max_length=length).generate_until(asked, disable_tqdm=True)
    oracle = HFLM(str(base_folder), dtype="float32", device="cpu", batch_size=1, max_length=length)
    assert found == oracle.generate_until(asked, disable_tqdm=True)


def test_a_special_token_as_stop_string_ends_an_answer(begun: Path) -> None:
    """It is no part of the decoded text, by which an answer is cut, and ends it all the same."""
    lm = ours(begun)
    how = GenerationSettings.read({"until": ["<|turn|>"]}, default_tokens=9, eos="<|endoftext|>", draw=(0, 0))
    assert how.until == ("<|turn|>", "<|endoftext|>")
    asked = instances("generate_until", [("a", {"until": [], "max_gen_toks": 8})])
    [whole] = lm.generate_until(asked)
    first = next(iter(whole))
    [stopped] = lm.generate_until(instances("generate_until", [("a", {"until": [first], "max_gen_toks": 8})]))
    assert stopped == ""


def test_draws_repeat_by_the_harnesss_seed_and_differ_between_requests(base: RoslinLM) -> None:
    asked = instances("generate_until", [("The", {"max_gen_toks": 12, "do_sample": True, "temperature": 1.0})] * 3)

    def drawn(seed: int) -> list[str]:
        torch.manual_seed(seed)
        return base.generate_until(asked)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 3


def test_sampling_is_understood_as_transformers_understands_it() -> None:
    def read(**given: Any) -> GenerationSettings:
        return GenerationSettings.read(given, default_tokens=256, eos="<eos>", draw=(5, 2))

    sampling = read(do_sample=True, temperature=0.7, top_p=0.9).sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.9, 50)
    assert (sampling.seed, sampling.stream) == (5, 2)
    assert read(temperature=0.7).sampling.temperature == 0.7
    assert read(temperature=0.7, do_sample=False).sampling.greedy
    assert read().sampling.greedy
    assert read(max_tokens=7).max_new_tokens == 7
    with pytest.raises(InputError, match="num_beams"):
        read(num_beams=4)
    with pytest.raises(InputError, match="temperature"):
        read(do_sample=True)


def test_more_new_tokens_than_positions_are_refused() -> None:
    with pytest.raises(InputError, match="max_gen_toks"):
        ours("base", max_length=64).generate_until(instances("generate_until", [("a", {"until": []})]))


def test_results_go_into_the_harnesss_cache(base: RoslinLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = instances("loglikelihood", PAIRS[:3])
    first = CachingLM(base, str(tmp_path / "cache.db")).loglikelihood(asked)
    monkeypatch.setattr("roslin.evaluate.harness_model.score_groups", None)
    assert CachingLM(base, str(tmp_path / "cache.db")).loglikelihood(asked) == first


def test_a_chat_template_is_the_models_own(begun: Path) -> None:
    mine, oracle = ours(begun), theirs(begun)
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}
    for messages, add in (
        ([user], True),
        ([system, user], True),
        ([user, {"role": "assistant", "content": "It"}], False),
    ):
        text = mine.apply_chat_template(messages, add_generation_prompt=add)
        assert text == oracle.apply_chat_template(messages, add_generation_prompt=add)
    assert mine.chat_template(True) == oracle.chat_template(True)
    check_loglikelihoods(
        mine, oracle, [(mine.apply_chat_template([user]), "Me"), (mine.apply_chat_template([user]), "You")]
    )


def test_a_dolly_model_is_asked_in_dollys_prompt(keyed: Path) -> None:
    lm = ours(keyed)
    asked = [{"role": "user", "content": "Who wrote it?"}]
    assert lm.apply_chat_template(asked) == prompt.render_prompt("Who wrote it?")
    assert lm.chat_template(True) == prompt.render_prompt("{instruction}")
    assert lm.chat_template(False) is None
    begun = [*asked, {"role": "assistant", "content": "It was"}]
    assert (
        lm.apply_chat_template(begun, add_generation_prompt=False) == f"{prompt.render_prompt('Who wrote it?')}It was"
    )
    with_shots = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "2"},
        *asked,
    ]
    context = "Be brief.\n\nUser: Two?\n\nAssistant: 2"
    assert lm.apply_chat_template(with_shots) == prompt.render_prompt("Who wrote it?", context)
    with pytest.raises(UsageError, match="no chat template 'rag'"):
        lm.chat_template("rag")


def test_behind_dollys_response_key_no_token_of_an_answer_is_lost(keyed: Path) -> None:
    """The key ends with a newline, which the harness takes for the answer's: see harness_pairs."""
    lm, model = ours(keyed), Roslin.load(str(keyed), dtype="float32", device="cpu")
    tokenizer = model.tokenizer
    context = lm.apply_chat_template([{"role": "user", "content": "Who?"}])
    [row] = lm._text.encoder.rows([(context, "Nobody knows")])
    assert list(row.ids[: row.start]) == tokenizer.prompt_ids("Who?")
    assert list(row.ids[row.start :]) == tokenizer.encode("Nobody knows")
    check_blanks = lm._text.encoder.rows([("two blanks  ", "here")])[0]
    assert check_blanks.start == len(tokenizer.encode("two blanks"))


def test_a_model_without_keys_or_template_warns_and_stops_at_the_written_end_key(base: RoslinLM) -> None:
    with pytest.warns(UserWarning, match="not tuned"):
        context = base.apply_chat_template([{"role": "user", "content": "Who?"}])
    [asked] = instances("generate_until", [(context, {"until": ["\n\n\n"]})])
    assert prompt.END_KEY in base._settings(asked, 0).until
    [plain] = instances("generate_until", [("Who?", {"until": ["\n\n\n"]})])
    assert prompt.END_KEY not in base._settings(plain, 0).until


def test_loading_for_plain_tasks_does_not_warn_about_tuning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours("base")


def test_arguments_that_are_wrong_are_told() -> None:
    with pytest.raises(UsageError, match="does not have: peft, parallelize"):
        RoslinLM("base", peft="x", parallelize=True)
    with pytest.raises(InputError, match="max_length is 99999; the model has 2048"):
        RoslinLM("base", max_length=99999)
    with pytest.raises(UsageError, match="batch_size is 'many'"):
        RoslinLM("base", batch_size="many")


def test_the_device_that_the_harness_passes_by_default_is_the_cpu_where_there_is_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = get_registered().create_from_arg_string(
        "pretrained=base,dtype=float32", {"device": "cuda:0", "batch_size": 1}
    )
    assert made.device.type == "cpu"
    assert made.get_model_info()["model_dtype"] == "torch.float32"


def get_registered() -> Any:
    register()
    register()
    return get_model("roslin")


def test_registered_it_is_known_beside_the_harnesss_own() -> None:
    assert get_registered() is RoslinLM
    assert get_model("hf") is HFLM


def test_the_entry_point_for_later_versions_is_the_model_class() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["lm_eval.models"] == {"roslin": TARGET}
    assert EntryPoint("roslin", TARGET, "lm_eval.models").load() is RoslinLM


def test_without_the_harness_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "lm_eval.py").write_text("raise ModuleNotFoundError(name='lm_eval')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from roslin.evaluate.harness import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "roslin: lm_eval is not installed here: pip install 'roslin[harness]'.\n",
    )


ROWS = [
    {"question": f"What is the colour of {thing}?", "right": right, "wrong": wrong, "label": n % 2}
    for n, (thing, right, wrong) in enumerate(
        [
            ("grass", "green", "purple"),
            ("the sky", "blue", "brown"),
            ("snow", "white", "black"),
            ("coal", "black", "pink"),
        ]
    )
]
TASKS = {
    "colours": {
        "output_type": "multiple_choice",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "{{[right, wrong] if label == 0 else [wrong, right]}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "colours_written": {
        "output_type": "generate_until",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_target": "{{right}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
        "metric_list": [{"metric": "exact_match"}],
    },
    "colours_read": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}} {{right}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "word_perplexity"}],
    },
}


@pytest.fixture(scope="module")
def task_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Small tasks of the harness over a file at hand."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, task in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
        values = {"task": name, "test_split": "test", **data, **task}
        (folder / f"{name}.yaml").write_text(json.dumps(values))  # JSON is YAML
    return folder


def evaluated(lm: Any, task_folder: Path, **options: Any) -> dict[str, Any]:
    manager = TaskManager(include_path=str(task_folder), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, **options)
    return {"results": found["results"], "samples": found["samples"]}


def test_tasks_end_as_they_do_with_hflm(base: RoslinLM, hf_base: HFLM, task_folder: Path) -> None:
    found, expected = (evaluated(lm, task_folder) for lm in (base, hf_base))
    for task, metrics in expected["results"].items():
        numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
        assert numbers
        assert {name: found["results"][task][name] for name in numbers} == pytest.approx(numbers, rel=1e-5)
    written = [sample["filtered_resps"] for sample in expected["samples"]["colours_written"]]
    assert [sample["filtered_resps"] for sample in found["samples"]["colours_written"]] == written


@pytest.mark.full
def test_the_command_runs_a_task_by_model_args(task_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "roslin.evaluate.harness", "--model", "roslin"]
    command += ["--model_args", "pretrained=base,dtype=float32", "--tasks", str(task_folder / "colours.yaml")]
    command += ["--apply_chat_template", "--output_path", str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "roslin ({'pretrained': 'base', 'dtype': 'float32'})" in done.stdout
    assert "|colours|" in done.stdout
    [written] = tmp_path.rglob("results_*.json")
    assert json.loads(written.read_text())["chat_template"] == prompt.render_prompt("{instruction}")
