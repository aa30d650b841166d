"""The harness's model class against HFLM, the harness's own, on the same models."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CachingLM
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing

from harness_models import instances, ours, theirs
from roslin import prompt
from roslin.answer import Roslin
from roslin.errors import InputError, UsageError
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


def test_keys_in_a_text_are_tokens_as_they_are_to_hflm(keyed: Path) -> None:
    texts = [("### Instruction:\nWho?\n\n### Response:\nI", " am\n\n### End"), ("", "### End of it")]
    check_loglikelihoods(ours(keyed), theirs(keyed), [*texts, *PAIRS[:6]])


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
    large = RoslinLM(base._model, batch_size=64)
    assert large._tokens_per_pass == 64 * 2048
    backwards = large.loglikelihood(instances("loglikelihood", PAIRS[::-1]))[::-1]
    no_documents = base.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in PAIRS])
    expected = [value for value, _ in alone]
    for other in (one_document, backwards, no_documents):
        assert [value for value, _ in other] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("arguments", [{}, {"add_bos_token": True}, {"add_bos_token": False}, {"prefix_token_id": 77}])
def test_beginnings_of_texts_are_hflms(begun: Path, arguments: dict[str, Any]) -> None:
    mine, oracle = ours(begun, **arguments), theirs(begun, **arguments)
    assert mine.prefix_token_id == oracle.prefix_token_id
    check_loglikelihoods(mine, oracle, [*PAIRS[2:9], ("<s>marked", " twice"), ("", "<s> once")])
    rolling = instances("loglikelihood_rolling", [("a text",), ("<s>another",)])
    assert mine.loglikelihood_rolling(rolling) == pytest.approx(oracle.loglikelihood_rolling(rolling), abs=1e-4)


TEXTS = ["The quick brown fox jumps over the lazy dog. " * 3, "", "x", "one two three", "word " * 16]


def test_rolling_log_likelihoods_are_hflms(base: RoslinLM, hf_base: HFLM, base_folder: Path) -> None:
    asked = instances("loglikelihood_rolling", [(text,) for text in TEXTS])
    in_windows = ours("base", max_length=16), theirs(base_folder, max_length=16)
    for mine, oracle in ((base, hf_base), in_windows):
        assert mine.loglikelihood_rolling(asked) == pytest.approx(oracle.loglikelihood_rolling(asked), rel=1e-5)


def test_greedy_answers_are_hflms(base: RoslinLM, hf_base: HFLM, base_folder: Path) -> None:
    asked = instances("generate_until", GENERATIONS)
    cut_short = ours("base", max_length=40), theirs(base_folder, max_length=40)
    for mine, oracle in ((base, hf_base), cut_short):
        assert mine.generate_until(asked, disable_tqdm=True) == oracle.generate_until(asked, disable_tqdm=True)


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
