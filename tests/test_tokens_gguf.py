"""Tokenizers out of GGUF files, against the tokenizers that they were written from, transformers and llama.cpp."""

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import regex
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, trainers

from gguf_files import write_keys, write_tokenizer
from roslin.errors import InputError
from roslin.tokens import TextStream, Tokenizer
from roslin.tokens.cutting import CUTTINGS

TEXTS = [
    "",
    "Hello, world!",
    "  two spaces  12 and 3456,  78.90",
    "def f(x):\n    return x**2  # it's O(1)\n\n\n\tpass\r\n",
    "I'Ve 'told you: we'LL DON'T",
    "naïve café Ωμέγα ﬃ ½ ² ٣٤",
    "漢字かな交じり文。한국어 문장",
    "👩‍👩‍👧 🇫🇷 🧑🏽 ✅",
    "<|endoftext|> <|im_start|>user",
    "a\u00a0b\u2028c\u200bd\x00e",
    "HTTPServer XMLHttpRequest iPhone",
]
AWKWARD = st.text(st.sampled_from("aBé漢٣1 2'sLl.,+$<|\n\t\r\u00a0_👩\u200d"), max_size=24)


def load(path: Path) -> Tokenizer:
    return Tokenizer.load(path)


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Tokenizer:
    path = tmp_path_factory.mktemp("neox") / "m.gguf"
    eos = {"bos_token_id": 0, "eos_token_id": 0, "padding_token_id": 1}
    return load(write_tokenizer(path, base_folder / "tokenizer.json", "olmo", "gptneox", **eos))


@pytest.fixture(scope="module")
def original(base_folder: Path) -> Tokenizer:
    return Tokenizer.load(base_folder)


@given(text=st.one_of(st.text(max_size=60), AWKWARD, st.sampled_from(TEXTS)))
@settings(deadline=None)
def test_ids_are_those_of_the_tokenizer_that_the_file_came_from(
    neox: Tokenizer, original: Tokenizer, text: str
) -> None:
    assert neox.encode(text) == original.encode(text)
    assert neox.decode(neox.encode(text)) == unicodedata.normalize("NFC", text)


def test_settings_and_sizes_are_those_of_the_original(neox: Tokenizer, original: Tokenizer) -> None:
    names = ("bos_token", "eos_token", "pad_token")
    assert {name: neox.settings[name] for name in names} == {name: original.settings[name] for name in names}
    assert (neox.size, neox.eos_id, neox.has_keys) == (original.size, original.eos_id, False)
    assert neox.add_keys() == original.add_keys() != []


def test_pythias_tokenizer_survives_the_format(tmp_path: Path, pythia_tokenizer: Path, dolly_15k: Path) -> None:
    """With its runs of spaces, which are added tokens but not special, and if no name says how it cuts texts."""
    expected = Tokenizer.load(pythia_tokenizer)
    lines = dolly_15k.read_text(encoding="utf-8").splitlines()[:500]
    texts = [*TEXTS, *(json.loads(line)["response"] for line in lines), "\n".join(" " * n + "x" for n in range(40))]
    for pre in ("olmo", None):
        found = load(write_tokenizer(tmp_path / "m.gguf", pythia_tokenizer, pre, "gptneox"))
        assert [found.encode(text) for text in texts] == [expected.encode(text) for text in texts]


def test_a_saved_tokenizer_is_a_transformers_folder(tmp_path: Path, base_folder: Path) -> None:
    named = {"bos_token_id": 0, "eos_token_id": 0, "padding_token_id": 1}
    path = write_tokenizer(
        tmp_path / "m.gguf", base_folder / "tokenizer.json", "gpt-2", chat_template="{{ x }}", **named
    )
    ours = load(path)
    ours.add_keys()
    ours.save(tmp_path / "folder")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    again = Tokenizer.load(tmp_path / "folder")
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == ours.encode(text)
        assert again.encode(text) == ours.encode(text)
    assert theirs.eos_token == "<|endoftext|>" and theirs.pad_token == "<|endoftext|>"
    assert theirs.chat_template == again.settings["chat_template"] == "{{ x }}"
    assert again.has_keys and again.size == ours.size == len(theirs)


CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
PLAIN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
LETTERS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = [CONTRACTIONS + LETTERS + r"\p{N}{1,3}" + REST]
QWEN2 = [CONTRACTIONS + LETTERS + r"\p{N}" + REST]
LLAMA_CPP = {
    "gpt-2": [PLAIN],
    "olmo": [PLAIN],
    "smollm": [r"\p{N}", PLAIN],
    "refact": [r"\p{N}", PLAIN],
    "llama-bpe": LLAMA3,
    "smaug-bpe": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "default": [r"[\p{P}\$\+<=>\^~\|]+", PLAIN, r"\p{N}+", "[0-9][0-9][0-9]"],
}
"""The regular expressions of llama.cpp's src/llama-vocab.cpp, each of which cuts what those before it left."""


def cut(pieces: list[str], pattern: str) -> Iterator[str]:
    """The slow plain version: what matches is a piece of its own, and so is what lies between two matches."""
    for piece in pieces:
        end = 0
        for found in regex.finditer(pattern, piece):
            yield from filter(None, (piece[end : found.start()], found[0]))
            end = found.end()
        yield from filter(None, (piece[end:],))


@pytest.mark.parametrize("name", LLAMA_CPP)
@given(text=AWKWARD)
@settings(deadline=None)
def test_texts_are_cut_as_llama_cpp_cuts_them(name: str, text: str) -> None:
    backend = tokenizers.Tokenizer(models.BPE())
    CUTTINGS[name].apply(backend)
    pieces = [text] if text else []
    for pattern in LLAMA_CPP[name]:
        pieces = list(cut(pieces, pattern))
    assert [text[a:b] for _, (a, b) in backend.pre_tokenizer.pre_tokenize_str(text)] == pieces


@pytest.mark.parametrize("pre", ["llama-bpe", "dbrx", "qwen2", "deepseek-r1-qwen", "tekken", "gpt-2"])
def test_ids_equal_those_of_transformers_own_reader(tmp_path: Path, base_folder: Path, pre: str) -> None:
    """For the names that it cuts rightly, and texts in Unicode's form NFC, to which it does not bring them."""
    write_tokenizer(tmp_path / "m.gguf", base_folder / "tokenizer.json", pre, eos_token_id=0)
    ours = load(tmp_path / "m.gguf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False, split_special_tokens=True), text


def test_digits_are_cut_off_one_by_one(tmp_path: Path, base_folder: Path) -> None:
    """`smollm` stands for Digits and ByteLevel. transformers' own reader leaves the digits out (as of 5.23)."""
    content = json.loads((base_folder / "tokenizer.json").read_text())
    steps = [{"type": "Digits", "individual_digits": True}, content["pre_tokenizer"]]
    content |= {"normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}
    expected = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)))
    found = load(write_tokenizer(tmp_path / "m.gguf", base_folder / "tokenizer.json", "smollm"))
    for text in [*TEXTS, "in  1984", " ½½", "x  ٣٤"]:
        assert found.encode(text) == expected.encode(text)
        assert found.decode(found.encode(text)) == text


def test_qwens_texts_are_composed_as_its_own_tokenizer_does(tmp_path: Path, base_folder: Path) -> None:
    path = write_tokenizer(tmp_path / "m.gguf", base_folder / "tokenizer.json", None, "qwen2", eos_token_id=0)
    content = json.loads((base_folder / "tokenizer.json").read_text())["model"]
    merges = [tuple(merge) for merge in content["merges"]]
    oracle = transformers.Qwen2Tokenizer(vocab=content["vocab"], merges=merges)
    for text in ["cafe\u0301 \u1100\u1161", *TEXTS[1:8]]:
        assert load(path).encode(text) == oracle.encode(text)


def test_a_piece_that_is_a_token_is_not_merged_where_the_original_does_not(tmp_path: Path, base_folder: Path) -> None:
    """Llama 3 has tokens that its merges do not lead to."""
    content = json.loads((base_folder / "tokenizer.json").read_text())
    token = "Ġsheepdogs"
    assert token not in content["model"]["vocab"]
    tokens = [*sorted(content["model"]["vocab"], key=content["model"]["vocab"].get), token]
    kinds = [3, 3, *[1] * (len(tokens) - 2)]
    for pre, whole in [("llama-bpe", True), ("smaug-bpe", False)]:
        changed = {"tokens": tokens, "token_type": kinds}
        path = write_tokenizer(tmp_path / "m.gguf", base_folder / "tokenizer.json", pre, **changed)
        assert (load(path).encode(" sheepdogs") == [len(tokens) - 1]) == whole


LETTERS_ONLY = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def tiny(path: Path, last: list[str], kinds: list[int], **values: Any) -> Path:
    """A byte-level tokenizer of single bytes and some tokens after them."""
    keys = {"model": "gpt2", "pre": "gpt-2", "tokens": [*LETTERS_ONLY, *last], "token_type": [*[1] * 256, *kinds]}
    return write_keys(path, **keys | {"merges": ["a b"]} | values)


def test_control_tokens_are_special_and_user_defined_ones_are_not(tmp_path: Path) -> None:
    found = load(tiny(tmp_path / "m.gguf", ["ab", "<end>", "<tab>", "  "], [1, 3, 4, 4], eos_token_id=257))
    assert found.encode("<end>") == found.encode("<") + found.encode("end") + found.encode(">")
    assert found.encode("x<tab>  ab") == [*found.encode("x"), 258, 259, 256]
    assert found.eos_id == 257
    marked = found.marked_backend()
    assert marked.encode("x<end>").ids == [*found.encode("x"), 257]
    assert marked.decode([257, 256], skip_special_tokens=True) == "ab"
    assert found.encode("<end>") != [257]
    stream = TextStream(found)
    assert "".join(stream.push(id) for id in [256, 258, 259, 257]) == "ab<tab>  <end>"


def test_rows_that_only_fill_a_head_are_no_tokens(tmp_path: Path) -> None:
    last = ["ab", "[PAD257]", "<end>", "[PAD259]", "[PAD260]"]
    found = load(tiny(tmp_path / "m.gguf", last, [1, 5, 3, 5, 5], padding_token_id=260))
    assert (found.size, "pad_token" in found.settings) == (259, False)
    assert found.add_keys() == [259, 260, 261]


def test_tokens_that_end_a_turn(tmp_path: Path) -> None:
    tokens = ["ab", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<bye>"]
    found = load(tiny(tmp_path / "m.gguf", tokens, [1, 3, 1, 3, 3], eos_token_id=257, eot_token_id=260))
    assert (found.eos_id, found.turn_ends) == (257, {257, 259, 260})
    found.save(tmp_path / "folder")
    assert Tokenizer.load(tmp_path / "folder").turn_ends == set()


@pytest.mark.parametrize(("pre", "begins"), [("llama-bpe", True), ("tekken", True), ("qwen2", False), ("gpt-2", False)])
def test_whether_texts_begin_with_a_token(tmp_path: Path, pre: str, begins: bool) -> None:
    unsaid = load(tiny(tmp_path / "m.gguf", ["ab"], [1], pre=pre))
    said = load(tiny(tmp_path / "m.gguf", ["ab"], [1], pre=pre, add_bos_token=not begins))
    assert (unsaid.settings["add_bos_token"], said.settings["add_bos_token"]) == (begins, not begins)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "bert"}, r"of the model 'bert'; Roslin reads gpt2 \(byte-level BPE\) and llama"),
        ({"model": None}, r"tokenizer\.ggml\.model is missing"),
        ({"pre": "kimi-k2"}, "cuts texts as 'kimi-k2' does; Roslin knows gpt-2, mpt, olmo, smollm"),
        ({"tokens": None}, r"tokenizer\.ggml\.tokens is missing"),
        ({"tokens": ["a", "b"]}, "has 2 tokens and the kinds of 257"),
        ({"tokens": ["a", "a"], "token_type": [1, 1]}, "lists the same token twice"),
        ({"merges": ["a q"]}, r"its tokenizer cannot be used \(.*aq.*\)"),
        ({"merges": None}, r"tokenizer\.ggml\.merges is missing"),
        ({"eos_token_id": 257}, r"eos_token_id is 257, and the file has 257 tokens"),
        ({"add_bos_token": "yes"}, r"add_bos_token is 'yes'; it must be of the type bool"),
    ],
)
def test_files_whose_tokenizer_cannot_be_used(tmp_path: Path, values: dict[str, Any], said: str) -> None:
    path = tiny(tmp_path / "m.gguf", ["ab"], [1], **values)
    with pytest.raises(InputError, match=said) as raised:
        load(path)
    assert str(path) in str(raised.value)


def test_a_gguf_file_is_known_by_its_name_or_its_content(tmp_path: Path) -> None:
    path = tiny(tmp_path / "m.gguf", ["ab"], [1])
    assert load(path.rename(tmp_path / "model")).size == 257
    (tmp_path / "no.gguf").write_bytes(b"{}")
    with pytest.raises(InputError, match=r"no\.gguf is no GGUF file"):
        load(tmp_path / "no.gguf")


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.fixture(scope="module")
def pieces(base_folder: Path) -> list[str]:
    """Pieces as SentencePiece has them, in the order in which merging makes them."""
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False, limit_alphabet=80)
    backend = tokenizers.Tokenizer(models.BPE())
    text = (base_folder / "README.md").read_text(encoding="utf-8")
    backend.train_from_iterator(["▁" + word for word in text.split()], trainer)
    return sorted(backend.get_vocab(), key=backend.get_vocab().get)


def sentencepiece(path: Path, pieces: list[str], **values: Any) -> Path:
    """A file as llama.cpp's converter writes it: single characters last, scores that fall with each merge."""
    merged = [piece for piece in pieces if len(piece) > 1]
    letters = [piece for piece in pieces if len(piece) == 1]
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *merged, *letters]
    keys = {
        "model": "llama",
        "tokens": tokens,
        "scores": [*[0.0] * 259, *(-float(rank) for rank in range(len(merged) + len(letters)))],
        "token_type": [2, 3, 3, *[6] * 256, *[1] * (len(merged) + len(letters))],
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return write_keys(path, **keys | values)


def test_sentencepiece_merges_as_transformers_does(tmp_path: Path, pieces: list[str]) -> None:
    ours = load(sentencepiece(tmp_path / "m.gguf", pieces))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in [*TEXTS[:-3], "the tokenizer of the model", "this is a test of  the\n\n merges", "training the base"]:
        if not text.startswith(" "):
            expected = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
            assert ours.encode(text) == expected, text
        assert ours.decode(ours.encode(text)) == text
    assert ours.settings["add_bos_token"] is True


def test_sentencepiece_puts_a_space_before_a_text_that_has_one(tmp_path: Path, pieces: list[str]) -> None:
    """As SentencePiece, llama.cpp and Llama's own tokenizer.json do; transformers' own reader does not (as of 5.23)."""
    ours = load(sentencepiece(tmp_path / "m.gguf", pieces))
    tokens = ours.marked_backend().get_vocab()
    assert ours.encode("the") == [tokens["▁the"]]
    assert ours.encode(" the") == [tokens["▁"], tokens["▁the"]]
    assert ours.decode(ours.encode("  the ")) == "  the "
    bare = load(sentencepiece(tmp_path / "m.gguf", pieces, add_space_prefix=False))
    assert bare.encode(" the") == ours.encode("the")
    assert bare.decode(bare.encode("the")) == "the"


def test_sentencepiece_spells_unknown_characters_in_bytes_and_keeps_special_text_plain(
    tmp_path: Path, pieces: list[str]
) -> None:
    ours = load(sentencepiece(tmp_path / "m.gguf", [*pieces, "<s", "</s"]))
    assert ours.encode("𓃭")[-4:] == [3 + byte for byte in "𓃭".encode()]
    assert 1 not in ours.encode("<s>") and 2 not in ours.encode("</s>")
    assert ours.marked_backend().encode("<s>").ids == [1]
    ours.save(tmp_path / "folder")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert theirs.encode("the 𓃭", add_special_tokens=False) == ours.encode("the 𓃭")
