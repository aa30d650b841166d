"""A tokenizer as the keys of a GGUF file.

A file has the name of a way to cut texts instead of the way itself. Which name is right is found as llama.cpp's
converter finds it, by what tokens come out; but the tokenizer that the file makes is compared itself, not a hash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import models

from roslin.errors import InputError
from roslin.publish.parity import AWKWARD, TEXTS
from roslin.tokens.cutting import CUTTINGS
from roslin.tokens.gguf_vocabulary import CONTROL, KEY, NORMAL, UNUSED, USER_DEFINED
from roslin.tokens.sentencepiece import sentencepiece_backend

if TYPE_CHECKING:
    import gguf

    from roslin.publish.export_source import Source

UNKNOWN, BYTE = 2, 6
"""Two more of the kinds of tokens in `tokenizer.ggml.token_type`."""
FIRST_TRIED = {"gptneox": "olmo", "qwen2": "qwen2", "qwen3": "qwen2"}
"""The name that an architecture's own tokenizer has: where several cut the texts alike, it is the one to write."""
NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
PROBES = [part for parts in TEXTS for part in parts] + list(AWKWARD)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a tokenizer.json by id, and how it makes them."""

    source: Source
    content: dict[str, Any]
    vocabulary: dict[str, int]
    added: dict[int, dict[str, Any]]

    @classmethod
    def of(cls, source: Source) -> Vocabulary:
        """Raises InputError for a tokenizer that is not BPE: a GGUF file has no words for others."""
        backend = source.tokenizer.marked_backend()
        content = json.loads(backend.to_str())
        if content["model"]["type"] != "BPE":
            raise InputError(
                f"{source.path}: the tokenizer is of the kind {content['model']['type']}; only BPE goes into a GGUF "
                "file. Export the model as hf or ctranslate2."
            )
        added = {token["id"]: token for token in content["added_tokens"]}
        return cls(source, content, backend.get_vocab(with_added_tokens=True), added)

    @property
    def is_sentencepiece(self) -> bool:
        """Whether it merges characters, and bytes for what it does not know, rather than bytes alone."""
        return bool(self.content["model"]["byte_fallback"])

    def tokens(self) -> list[str]:
        """Every token by id; ids that are no token get a name that says so."""
        by_id = {id: token for token, id in self.vocabulary.items()}
        return [by_id.get(id, f"[PAD{id}]") for id in range(self.source.tokens)]

    def kinds(self) -> list[int]:
        """What kind each token is of."""
        unknown = self.content["model"]["unk_token"]
        return [self._kind(id, token, unknown) for id, token in enumerate(self.tokens())]

    def merges(self) -> list[tuple[str, str]]:
        """The pairs that it merges, first ones first."""
        return [tuple(m.split(" ", 1) if isinstance(m, str) else m) for m in self.content["model"]["merges"]]

    def scores(self) -> list[float]:
        """Scores by which SentencePiece would merge in the same order."""
        rank: dict[str, int] = {}
        for index, (left, right) in enumerate(self.merges()):
            rank.setdefault(left + right, index)
        return [float(-rank.get(token, len(rank))) for token in self.tokens()]

    def _kind(self, id: int, token: str, unknown: str | None) -> int:
        if token not in self.vocabulary:
            return UNUSED
        if self.is_sentencepiece and token == unknown:
            return UNKNOWN
        if id in self.added:
            return CONTROL if self.added[id]["special"] else USER_DEFINED
        return BYTE if self.is_sentencepiece and _is_byte(token) else NORMAL


def add_tokenizer(writer: gguf.GGUFWriter, source: Source) -> None:
    """Put a model's tokenizer into a file. Raises InputError for one that a GGUF file cannot hold."""
    vocabulary = Vocabulary.of(source)
    keys = _sentencepiece(vocabulary) if vocabulary.is_sentencepiece else _byte_level(vocabulary, writer.arch)
    keys |= {"tokens": vocabulary.tokens(), "token_type": vocabulary.kinds()} | _special_ids(source)
    for name, value in keys.items():
        _add(writer, KEY + name, value)
    if template := _chat_template(source):
        writer.add_chat_template(template)


def _byte_level(vocabulary: Vocabulary, architecture: str) -> dict[str, Any]:
    """The keys of byte-level BPE, and the first name under which texts are cut as the tokenizer cuts them."""
    model, pairs = vocabulary.content["model"], vocabulary.merges()
    backend = vocabulary.source.tokenizer.marked_backend()
    wanted = [found.ids for found in _plain(backend).encode_batch(PROBES, add_special_tokens=False)]
    first = FIRST_TRIED.get(architecture, "")
    for name in sorted(CUTTINGS, key=lambda name: name != first):
        if CUTTINGS[name].whole_words != model["ignore_merges"]:
            continue
        ours = tokenizers.Tokenizer(models.BPE(model["vocab"], pairs, ignore_merges=model["ignore_merges"]))
        CUTTINGS[name].apply(ours)
        if [found.ids for found in ours.encode_batch(PROBES, add_special_tokens=False)] == wanted:
            return {"model": "gpt2", "pre": name, "merges": [" ".join(pair) for pair in pairs]}
    raise InputError(
        f"{vocabulary.source.path}: the tokenizer cuts texts in a way that no name in GGUF files stands for; llama.cpp "
        "would make other tokens. Export the model as hf or ctranslate2."
    )


def _plain(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer without its added tokens, which have no part in how texts are cut."""
    content = json.loads(backend.to_str())
    return tokenizers.Tokenizer.from_str(json.dumps(content | {"added_tokens": [], "post_processor": None}))


def _sentencepiece(vocabulary: Vocabulary) -> dict[str, Any]:
    """The keys of SentencePiece's BPE, with or without a space in front of a text, as the tokenizer has it."""
    scores = vocabulary.scores()
    normal = {token: scores[id] for id, token in enumerate(vocabulary.tokens()) if vocabulary.kinds()[id] == NORMAL}
    backend = _plain(vocabulary.source.tokenizer.marked_backend())
    wanted = [found.ids for found in backend.encode_batch(PROBES, add_special_tokens=False)]
    plain, unknown = vocabulary.content["model"]["vocab"], vocabulary.content["model"]["unk_token"]
    for prefix in (True, False):
        ours = sentencepiece_backend(plain, normal, unknown, prefix)
        if [found.ids for found in ours.encode_batch(PROBES, add_special_tokens=False)] == wanted:
            return {"model": "llama", "scores": scores, "add_space_prefix": prefix}
    raise InputError(
        f"{vocabulary.source.path}: the tokenizer does not merge as SentencePiece does; llama.cpp would make other "
        "tokens. Export the model as hf or ctranslate2."
    )


def _special_ids(source: Source) -> dict[str, Any]:
    """The special tokens by id. The end key is the end of a turn, so that llama.cpp stops there by itself."""
    tokenizer = source.tokenizer
    backend = tokenizer.marked_backend()
    texts = {theirs: _text(tokenizer.settings.get(name)) for name, theirs in NAMED.items()}
    found = {theirs: backend.token_to_id(text) for theirs, text in texts.items() if text}
    found["eos"] = tokenizer.eos_id
    ends = sorted({tokenizer.end_id, *tokenizer.turn_ends} - {tokenizer.eos_id})
    if ends:
        found["eot"] = ends[0]
    ids = {f"{name}_token_id": id for name, id in found.items() if id is not None}
    return ids | {"add_bos_token": bool(tokenizer.start_ids), "add_eos_token": False}


def _chat_template(source: Source) -> str | None:
    path, setting = source.beside("chat_template.jinja"), source.tokenizer.settings.get("chat_template")
    if path:
        return path.read_text(encoding="utf-8")
    return setting if isinstance(setting, str) else None


def _text(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """Add a value as the kind that the format has for it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
