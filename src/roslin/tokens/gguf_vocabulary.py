"""The tokenizer inside a GGUF file: its vocabulary, its settings, and the tokens that end a turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, models

from roslin.errors import InputError
from roslin.gguf_file import GgufFile, open_gguf
from roslin.tokens.cutting import CUTTINGS, UNSAID, Cutting
from roslin.tokens.sentencepiece import sentencepiece_backend

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "tokenizer.ggml."
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""The kinds of tokens of `tokenizer.ggml.token_type`."""
NAMED = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""The special tokens of a tokenizer_config.json, and what a GGUF file calls them."""
TURN_ENDS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "</s>")
"""Control tokens that end an answer in the models that have them. A GGUF file has no generation_config.json to say so,
and many name only one of them, or the one that ends a text rather than a turn."""


@dataclass(frozen=True)
class GgufVocabulary:
    """What a GGUF file says of its tokenizer. Unused tokens at the end, which fill up a head's rows, are left out."""

    file: GgufFile
    tokens: list[str]
    kinds: list[int]

    @classmethod
    def read(cls, path: Path) -> GgufVocabulary:
        """Raises InputError for a file that is damaged, holds no tokenizer, or one that Roslin does not read."""
        file = open_gguf(path)
        tokens = file.value(KEY + "tokens", list)
        kinds = file.value(KEY + "token_type", list, [NORMAL] * len(tokens))
        if len(kinds) != len(tokens):
            raise InputError(f"{path} has {len(tokens):,} tokens and the kinds of {len(kinds):,}.")
        used = next((id + 1 for id in range(len(kinds) - 1, -1, -1) if kinds[id] != UNUSED), 0)
        if len(set(tokens[:used])) != used:
            raise InputError(f"{path} lists the same token twice. Its vocabulary is damaged: get the file anew.")
        return cls(file, tokens[:used], kinds[:used])

    def backend(self) -> tokenizers.Tokenizer:
        """The tokenizer itself."""
        backend = self._plain_backend()
        special = [*self._of_kind(CONTROL), *(self.tokens[id] for id in self._named_ids().values())]
        backend.add_special_tokens([_added(token, special=True) for token in dict.fromkeys(special)])
        backend.add_tokens([_added(token, special=False) for token in self._of_kind(USER_DEFINED)])
        return backend

    def settings(self) -> dict[str, Any]:
        """What a tokenizer_config.json would say."""
        begins = self._model() == "llama" or self._cutting().begins
        settings: dict[str, Any] = {
            "add_bos_token": self.file.value(KEY + "add_bos_token", bool, begins),
            "add_eos_token": self.file.value(KEY + "add_eos_token", bool, False),
            "clean_up_tokenization_spaces": False,
        }
        if template := self.file.value("tokenizer.chat_template", str, ""):
            settings["chat_template"] = template
        return settings | {name: self.tokens[id] for name, id in self._named_ids().items()}

    def turn_ends(self) -> frozenset[int]:
        """The ids of tokens that end an answer, besides the end of text."""
        ids = [self._id(name) for name in ("eot", "eom")]
        control = {token: id for id, token in enumerate(self.tokens) if self.kinds[id] == CONTROL}
        ids += [control.get(token) for token in TURN_ENDS]
        return frozenset(id for id in ids if id is not None)

    def _plain_backend(self) -> tokenizers.Tokenizer:
        vocabulary = {token: id for id, token in enumerate(self.tokens)}
        try:
            if self._model() == "llama":
                return self._sentencepiece(vocabulary)
            merges = [_pair(merge) for merge in self.file.value(KEY + "merges", list)]
            return _byte_level_backend(vocabulary, merges, self._cutting())
        except InputError:
            raise
        except Exception as error:  # tokenizers raises plain Exception for every fault of a vocabulary
            raise InputError(f"{self.file.path}: its tokenizer cannot be used ({error}). Get the file anew.") from None

    def _sentencepiece(self, vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
        scores = self.file.value(KEY + "scores", list)
        normal = {token: scores[id] for token, id in vocabulary.items() if self.kinds[id] == NORMAL}
        unknown = self.tokens[self._named_ids().get("unk_token", 0)]
        prefix = self.file.value(KEY + "add_space_prefix", bool, True)
        return sentencepiece_backend(vocabulary, normal, unknown, prefix)

    def _model(self) -> str:
        model = self.file.value(KEY + "model", str)
        if model not in ("gpt2", "llama"):
            raise InputError(
                f"{self.file.path}: its tokenizer is of the model {model!r}; Roslin reads gpt2 (byte-level BPE) and "
                "llama (SentencePiece BPE)."
            )
        return model

    def _cutting(self) -> Cutting:
        name = self.file.value(KEY + "pre", str, "default")
        if name == "default":
            name = UNSAID.get(self.file.value("general.architecture", str), name)
        if name not in CUTTINGS:
            known = ", ".join(CUTTINGS)
            raise InputError(f"{self.file.path}: its tokenizer cuts texts as {name!r} does; Roslin knows {known}.")
        return CUTTINGS[name]

    def _named_ids(self) -> dict[str, int]:
        found = {name: self._id(theirs) for name, theirs in NAMED.items()}
        return {name: id for name, id in found.items() if id is not None}

    def _id(self, name: str) -> int | None:
        key = f"{KEY}{name}_token_id"
        if key not in self.file.values:
            return None
        id, listed = self.file.value(key, int), len(self.file.value(KEY + "tokens", list))
        if not 0 <= id < listed:
            raise InputError(f"{self.file.path}: {key} is {id}, and the file has {listed:,} tokens.")
        return id if id < len(self.tokens) else None

    def _of_kind(self, kind: int) -> Iterator[str]:
        return (token for token, its in zip(self.tokens, self.kinds, strict=True) if its == kind)


def _byte_level_backend(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], cutting: Cutting
) -> tokenizers.Tokenizer:
    model = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=cutting.whole_words)
    backend = tokenizers.Tokenizer(model)
    cutting.apply(backend)
    backend.decoder = decoders.ByteLevel()
    return backend


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _added(token: str, special: bool) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token, special=special, normalized=False)
