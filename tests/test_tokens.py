"""Records to ids and back, against the tokenizer itself and transformers."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from roslin import prompt
from roslin.errors import InputError
from roslin.records import Record
from roslin.tokens import TextStream, Tokenizer


@pytest.fixture(scope="module")
def keyed(base_folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    return tokenizer


def test_a_long_text_does_not_hold_up_other_threads(keyed: Tokenizer) -> None:
    """A server goes on with its other answers while it encodes a prompt of megabytes."""
    done, beats = threading.Event(), []

    def beat() -> None:
        while not done.wait(0.001):
            beats.append(1)

    other = threading.Thread(target=beat)
    other.start()
    before = len(beats)
    keyed.encode("Sheep may safely graze. " * 40_000)
    during = len(beats) - before
    done.set()
    other.join()
    assert during > 3


@pytest.mark.full
def test_dolly_15k_has_the_ids_of_the_original_recipe(dolly_15k: Path, pythia_tokenizer: Path) -> None:
    """All 15,011 records against transformers' own tokenization of the full text, with the keys found among its ids."""
    from transformers import PreTrainedTokenizerFast

    peer = PreTrainedTokenizerFast(tokenizer_file=str(pythia_tokenizer))
    peer.add_special_tokens({"additional_special_tokens": list(prompt.SPECIAL_KEYS)})
    records = [Record(**json.loads(line)) for line in dolly_15k.read_text(encoding="utf-8").splitlines()]
    ours = Tokenizer.load(pythia_tokenizer)
    assert ours.add_keys() == [50277, 50278, 50279]

    examples = ours.examples(records)
    texts = [prompt.render_record(r.instruction, r.context, r.response) for r in records]
    expected = peer(texts, add_special_tokens=False)["input_ids"]

    assert len(examples) == 15_011
    assert [e.ids for e in examples] == expected
    # The original recipe masks everything up to the first response key.
    assert all(e.answer_start == ids.index(50279) + 1 for e, ids in zip(examples, expected, strict=True))
    assert sum(len(e.ids) for e in examples) == 3_021_113
    assert sum(len(e.ids) >= 2048 for e in examples) == 34
    assert ours.lengths(records) == [len(e.ids) for e in examples]


def test_an_example_is_the_prompt_and_the_answer(keyed: Tokenizer) -> None:
    record = Record(instruction="Name two rivers.", context="Think of Europe.", response="The Rhine and the Loire.")
    example = keyed.example(record)
    assert example.ids[: example.answer_start] == keyed.prompt_ids(record.instruction, record.context)
    assert keyed.decode(example.ids[example.answer_start :]) == "The Rhine and the Loire.\n\n### End"
    assert example.ids[-1] == keyed.end_id
    assert keyed.decode(example.ids) == prompt.render_record(record.instruction, record.context, record.response)


@pytest.mark.parametrize("text", ["### End", "Say ### Response:\nno", "### Instruction: x", "a<|endoftext|>b"])
def test_keys_inside_a_text_are_not_special(keyed: Tokenizer, text: str) -> None:
    ids = keyed.prompt_ids(text)
    special = {keyed.end_id, keyed.eos_id}
    assert not special.intersection(ids)
    # The frame's own two keys, and no others.
    assert sum(i >= keyed.size - 3 for i in ids) == 2
    assert text in keyed.decode(ids)


def test_without_keys_the_prompt_is_plain_text_and_examples_are_refused(base_folder: Path) -> None:
    plain = Tokenizer.load(base_folder)
    assert not plain.has_keys
    assert plain.end_id == plain.eos_id
    assert plain.decode(plain.prompt_ids("Hello?")) == prompt.render_prompt("Hello?")
    with pytest.raises(InputError, match="lacks Dolly's keys"):
        plain.example(Record(instruction="a", response="b"))


def test_an_empty_response_is_refused(keyed: Tokenizer) -> None:
    with pytest.raises(InputError, match=r"\[2\]"):
        keyed.examples([Record(instruction="a", response="b"), Record(instruction="a", response=" \n")])


def test_a_saved_tokenizer_is_the_same_here_and_in_transformers(keyed: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    keyed.save(tmp_path)
    again, peer = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    record = Record(instruction="Greet.", response="Héllo — 你好!")
    ids = keyed.example(record).ids
    assert again.example(record).ids == ids
    assert peer(prompt.render_record("Greet.", "", record.response))["input_ids"] == ids
    assert len(peer) == again.size == keyed.size
    assert peer.pad_token == peer.eos_token
    assert peer.convert_tokens_to_ids(prompt.END_KEY) == keyed.end_id
    assert set(prompt.SPECIAL_KEYS) <= set(peer.all_special_tokens)


@pytest.mark.parametrize("normalized", [False, True])
def test_keys_that_a_file_has_as_ordinary_tokens_are_not_to_be_spelled_out(
    base_folder: Path, keyed: Tokenizer, normalized: bool
) -> None:
    backend = tokenizers.Tokenizer.from_file(str(base_folder / "tokenizer.json"))
    ordinary = [tokenizers.AddedToken(key, special=False, normalized=normalized) for key in prompt.SPECIAL_KEYS]
    backend.add_tokens(ordinary)
    tokenizer = Tokenizer(backend)
    assert tokenizer.add_keys() == []
    record = Record(instruction="Repeat ### End and ### Response:\nno", response="### End")
    assert tokenizer.example(record) == keyed.example(record)


@pytest.mark.parametrize(
    "eos", [{}, {"eos_token": None}, {"eos_token": {}}, {"eos_token": 3}, {"eos_token": {"content": "<|endoftext|>"}}]
)
def test_the_end_of_text_is_saved_where_no_setting_names_it_well(
    base_folder: Path, tmp_path: Path, eos: dict[str, object]
) -> None:
    from transformers import AutoTokenizer

    shutil.copy(base_folder / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(eos))
    tokenizer = Tokenizer.load(tmp_path)
    tokenizer.add_keys()
    tokenizer.save(tmp_path / "saved")
    peer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert peer.eos_token == peer.pad_token == "<|endoftext|>"
    assert peer.eos_token_id == tokenizer.eos_id == 0
    assert len(peer) == tokenizer.size


@pytest.mark.parametrize("listed", ["additional_special_tokens", "extra_special_tokens"])
def test_the_bases_own_special_tokens_stay_special(base_folder: Path, tmp_path: Path, listed: str) -> None:
    from transformers import AutoTokenizer

    backend = tokenizers.Tokenizer.from_file(str(base_folder / "tokenizer.json"))
    backend.add_special_tokens(["<|turn|>"])
    tokenizer = Tokenizer(backend, {"eos_token": "<|endoftext|>", listed: ["<|turn|>", "<|not a token|>"]})
    tokenizer.add_keys()
    tokenizer.save(tmp_path)
    peer = AutoTokenizer.from_pretrained(tmp_path)
    assert {"<|turn|>", *prompt.SPECIAL_KEYS} <= set(peer.all_special_tokens)
    assert len(peer) == tokenizer.size


def test_a_tokenizer_that_transformers_saved_again_is_the_same(keyed: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    keyed.save(tmp_path / "ours")
    AutoTokenizer.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = Tokenizer.load(tmp_path / "theirs")
    record = Record(instruction="Say ### End.", context=" \t", response="  Héllo \n")
    assert again.has_keys
    assert again.example(record) == keyed.example(record)
    assert (again.size, again.end_id, again.eos_id) == (keyed.size, keyed.end_id, keyed.eos_id)


AWKWARD = st.text(st.sampled_from("aZ #:\n\t\r\u0301\u1100\u1161\u200b\u2028ﬁ한🏳"), max_size=12)


@settings(deadline=None, max_examples=200)
@given(instruction=AWKWARD, context=AWKWARD, response=AWKWARD)
def test_awkward_ends_of_texts_give_the_ids_of_the_whole_text(
    keyed: Tokenizer, whole_text_ids: Callable[[str], list[int]], instruction: str, context: str, response: str
) -> None:
    example = keyed.example(Record(instruction=instruction, context=context, response=f"{response}x{response}"))
    assert example.ids == whole_text_ids(prompt.render_record(instruction, context, f"{response}x{response}"))
    assert example.answer_start == example.ids.index(keyed.size - 1) + 1


@pytest.fixture(scope="module")
def whole_text_ids(keyed: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[int]]:
    """transformers' ids of a text in which keys are special."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    keyed.save(folder)
    peer = AutoTokenizer.from_pretrained(folder)
    return lambda text: list(peer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_sentencepiece_texts_get_their_spaces_where_transformers_puts_them(tmp_path: Path, scheme: str) -> None:
    """Mistral's tokenizers write one before a text's first word alone, Llama 2's before what follows a key as well."""
    from transformers import AutoTokenizer

    whole = prompt.render_record(RECORD.instruction, RECORD.context, RECORD.response)
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.train_from_iterator([whole], tokenizers.trainers.BpeTrainer(vocab_size=90, show_progress=False))
    tokenizer = Tokenizer(backend)
    tokenizer.add_keys()
    tokenizer.save(tmp_path)
    example = Tokenizer.load(tmp_path).example(RECORD)
    assert example.ids == AutoTokenizer.from_pretrained(tmp_path)(whole)["input_ids"]
    assert tokenizer.prompt_ids(RECORD.instruction, RECORD.context) == example.ids[: example.answer_start]
    assert tokenizer.lengths([RECORD]) == [len(example.ids)]


def test_missing_and_broken_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="not a readable tokenizer"):
        Tokenizer.load(tmp_path)


@settings(deadline=None)
@given(text=st.text(max_size=60))
def test_a_stream_says_what_decode_says_and_no_half_characters(base_folder: Path, text: str) -> None:
    tokenizer = Tokenizer.load(base_folder)
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer)
    pieces = [stream.push(i) for i in ids]
    whole = tokenizer.decode(ids)
    if "\ufffd" not in whole:
        assert all("\ufffd" not in piece for piece in pieces)
    assert "".join(pieces) + stream.flush() == whole


@settings(deadline=None)
@given(ids=st.lists(st.integers(2, 8190), max_size=40))
def test_a_stream_of_any_ids_loses_nothing(base_folder: Path, ids: list[int]) -> None:
    tokenizer = Tokenizer.load(base_folder)
    stream = TextStream(tokenizer)
    assert "".join(stream.push(i) for i in ids) + stream.flush() == tokenizer.decode(ids)


RECORD = Record(instruction="Greet.", context="It is morning.", response="Good morning!\nDid you sleep well?")


def test_the_keys_of_dolly_v1_are_known(base_folder: Path, tmp_path: Path) -> None:
    """dolly-v1-6b was made before the response key took in its newline; its tokens are other ones."""
    from transformers import PreTrainedTokenizerFast

    peer = PreTrainedTokenizerFast(tokenizer_file=str(base_folder / "tokenizer.json"), eos_token="<|endoftext|>")
    peer.add_special_tokens({"additional_special_tokens": list(prompt.FIRST_SPECIAL_KEYS)})
    peer.save_pretrained(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.has_keys
    assert tokenizer.add_keys() == []
    text = prompt.render_record(RECORD.instruction, RECORD.context, RECORD.response)
    example = tokenizer.example(RECORD)
    assert example.ids == peer(text)["input_ids"]
    assert tokenizer.decode(example.ids[example.answer_start :]) == f"{RECORD.response}\n\n{prompt.END_KEY}"
    asked = prompt.render_prompt(RECORD.instruction, RECORD.context)
    assert tokenizer.prompt_ids(RECORD.instruction, RECORD.context) == peer(asked)["input_ids"]
    assert tokenizer.lengths([RECORD]) == [len(example.ids)]
    tokenizer.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").example(RECORD) == example


@pytest.mark.parametrize(
    ("marks", "setting", "begins"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"add_bos_token": True}, True),
        (True, {"add_bos_token": False}, False),
    ],
)
def test_texts_begin_as_the_bases_tokenizer_begins_them(
    base_folder: Path, tmp_path: Path, marks: bool, setting: dict[str, bool], begins: bool
) -> None:
    """Llama's and Mistral's begin with a token of their own, without which these models do worse."""
    from transformers import AutoTokenizer

    backend = tokenizers.Tokenizer.from_file(str(base_folder / "tokenizer.json"))
    backend.add_special_tokens(["<|begin|>"])
    begin = backend.token_to_id("<|begin|>")
    if marks:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", begin)]
        )
    tokenizer = Tokenizer(backend, {"bos_token": "<|begin|>", **setting})
    plain = tokenizer.prompt_ids("Greet.")
    new = tokenizer.add_keys()
    ids = tokenizer.example(RECORD).ids
    assert (ids[0] == begin) == (plain[0] == begin) == (tokenizer.prompt_ids("Greet.")[0] == begin) == begins
    assert begin not in ids[1:]
    assert tokenizer.lengths([RECORD]) == [len(ids)]
    assert new[0] > begin
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).example(RECORD).ids == ids
    if not setting:
        peer = AutoTokenizer.from_pretrained(tmp_path)
        assert peer(prompt.render_record(RECORD.instruction, RECORD.context, RECORD.response))["input_ids"] == ids
