"""The tokenizer with Dolly's keys: a record to ids and a loss mask, made from spans, and ids back to text."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import pre_tokenizers

from roslin import prompt
from roslin.errors import InputError
from roslin.gguf_file import is_gguf
from roslin.records.record import Record
from roslin.tokens.gguf_vocabulary import GgufVocabulary

END_OF_TEXT = "<|endoftext|>"
"""What ends a text in the tokenizers of these families."""
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
LISTED = ("additional_special_tokens", "extra_special_tokens")
"""Where transformers 4 and 5 list the special tokens that have no name."""


@dataclass(frozen=True)
class Example:
    """A record as ids; the loss is taken on `ids[answer_start:]`, which is the response and the end key."""

    ids: list[int]
    answer_start: int

    @property
    def answer_count(self) -> int:
        """How many tokens the loss is taken on."""
        return len(self.ids) - self.answer_start


def encode_all(backend: tokenizers.Tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids of texts. By the batch call even for one: it lets other threads run, where the single call holds them up."""
    return [found.ids for found in backend.encode_batch_fast(texts, add_special_tokens=False)]


class Tokenizer:
    """A `tokenizers.Tokenizer` that knows Dolly's three keys by id: today's, or dolly-v1-6b's where a file has those.

    Text of records and of people is encoded with special tokens switched off: a key or an `<|endoftext|>` written
    inside it becomes ordinary tokens, never the special one.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        settings: Mapping[str, Any] | None = None,
        turn_ends: Collection[int] = (),
    ) -> None:
        """Wrap `backend`; `settings` is the content of a tokenizer_config.json.

        `turn_ends` are ids that end an answer besides the end of text, where the tokenizer's own file names them.
        """
        self.settings = dict(settings or {})
        self.turn_ends = frozenset(turn_ends)
        self._backend = backend
        self._keys = self._choose_keys()
        self._declare_special((*self._keys, self._eos_token))
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self._inner = _behind_others(self._backend)
        self._start = self._find_start()
        self._opening = [*self._start, *self.encode(prompt.spans("").opening)]

    @classmethod
    def load(cls, source: Path) -> Self:
        """Read a folder with a tokenizer.json (and tokenizer_config.json), one tokenizer.json file, or a GGUF file.

        Raises InputError, naming the file, when there is none or it cannot be read.
        """
        if is_gguf(source):
            vocabulary = GgufVocabulary.read(source)
            return cls(vocabulary.backend(), vocabulary.settings(), vocabulary.turn_ends())
        path = source / "tokenizer.json" if source.is_dir() else source
        if not path.is_file():
            raise InputError(
                f"{source}: no tokenizer.json here. A model folder needs its tokenizer: copy tokenizer.json and "
                "tokenizer_config.json from the model it was made from."
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises plain Exception for every fault of a file
            raise InputError(
                f"{path}: not a readable tokenizer ({error}). Copy the file again from its source."
            ) from None
        return cls(backend, _read_settings(path.parent / "tokenizer_config.json"))

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json as transformers reads them."""
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "tokenizer.json", _readable_by_all(json.loads(self._backend.to_str())))
        specials = self._specials()
        kept = {k: v for k, v in self.settings.items() if k not in (*NAMED, *LISTED, "added_tokens_decoder")}
        _write_json(folder / "tokenizer_config.json", kept | specials | {"tokenizer_class": "PreTrainedTokenizerFast"})
        _write_json(folder / "special_tokens_map.json", specials)

    def marked_backend(self) -> tokenizers.Tokenizer:
        """An independent copy of the backend to which special tokens in a text are special: for chat templates."""
        return tokenizers.Tokenizer.from_str(self._backend.to_str())

    @property
    def size(self) -> int:
        """Number of ids, added tokens included; ids at or above it are padding rows of a head."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token, added ones included, with its id."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @property
    def has_keys(self) -> bool:
        """Whether Dolly's three keys are tokens."""
        return all(self._has(key) for key in self._keys)

    def add_keys(self) -> list[int]:
        """Add Dolly's three keys where they are missing; the ids that are new, in Dolly's order."""
        missing = [key for key in self._keys if not self._has(key)]
        self._backend.add_special_tokens([_special(key) for key in missing])
        return [self._id(key) for key in missing]

    @property
    def end_id(self) -> int:
        """Id of the end key, or of the end of text where the keys are missing."""
        return self._id(prompt.END_KEY) if self.has_keys else self.eos_id

    @property
    def eos_id(self) -> int:
        """Id of the base's end of text, `<|endoftext|>` where no setting names it. InputError when that is no token."""
        return self._id(self._eos_token)

    def encode(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts in which nothing is special."""
        return encode_all(self._backend, list(texts))

    @property
    def start_ids(self) -> list[int]:
        """What every text begins with: Llama's begin-of-text token, for one; nothing in the family of Dolly."""
        return list(self._start)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, special tokens written out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def prompt_ids(self, instruction: str, context: str | None = None) -> list[int]:
        """Ids a model is asked with. Without the keys among the tokens, the prompt is encoded as plain text."""
        if not self.has_keys:
            return [*self._start, *self.encode(prompt.render_prompt(instruction, context))]
        [question] = self._encode_behind_keys([prompt.spans(instruction, context).question])
        return self._question_ids(question)

    def example(self, record: Record) -> Example:
        """One record as ids and loss mask; see `examples`."""
        return self.examples([record])[0]

    def examples(self, records: Sequence[Record]) -> list[Example]:
        """Records as ids and loss masks, exactly as the original recipe tokenizes the whole text.

        Raises InputError for a record with an empty response (its labels would teach nothing but the end key), and
        when the tokenizer lacks the keys.
        """
        if not self.has_keys:
            raise InputError("This tokenizer lacks Dolly's keys; add them (add_keys) before records become examples.")
        empty = [number for number, record in enumerate(records, 1) if not record.response.strip()]
        if empty:
            raise InputError(
                f"Records with an empty response teach nothing: {empty[:10]}. `roslin records check` lists them."
            )
        pieces = [prompt.spans(r.instruction, r.context, r.response) for r in records]
        questions = self._encode_behind_keys([piece.question for piece in pieces])
        answers = self._encode_behind_keys([piece.answer for piece in pieces])
        return [self._join(question, answer) for question, answer in zip(questions, answers, strict=True)]

    def lengths(self, records: Sequence[Record]) -> list[int]:
        """Number of tokens in each record's whole training text, keys included."""
        texts = [prompt.spans(r.instruction, r.context, r.response) for r in records]
        pieces = [t.question for t in texts] + [t.answer for t in texts]
        counts = [len(ids) for ids in self._encode_behind_keys(pieces)]
        fixed = len(self._question_ids([])) + 1
        return [fixed + q + a for q, a in zip(counts[: len(texts)], counts[len(texts) :], strict=True)]

    def _join(self, question: list[int], answer: list[int]) -> Example:
        start = self._question_ids(question)
        return Example([*start, *answer, self._id(prompt.END_KEY)], answer_start=len(start))

    def _question_ids(self, question: list[int]) -> list[int]:
        return [*self._opening, self._id(prompt.INSTRUCTION_KEY), *question, *self._response_ids()]

    def _response_ids(self) -> list[int]:
        """What stands before an answer. The key of today holds its newline; dolly-v1-6b's is followed by one."""
        *_, key = self._keys
        [rest] = self._encode_behind_keys([prompt.RESPONSE_KEY_LINE.removeprefix(key)])
        return [self._id(key), *rest]

    def _choose_keys(self) -> tuple[str, ...]:
        added = {token.content for token in self._backend.get_added_tokens_decoder().values()}
        is_first = added.issuperset(prompt.FIRST_SPECIAL_KEYS) and prompt.RESPONSE_KEY_LINE not in added
        return prompt.FIRST_SPECIAL_KEYS if is_first else prompt.SPECIAL_KEYS

    def _find_start(self) -> list[int]:
        """What the settings or the backend put in front of a text."""
        bos = _token_text(self.settings.get("bos_token"))
        wanted = self.settings.get("add_bos_token")
        if isinstance(wanted, bool):
            return [self._id(bos)] if wanted and bos else []
        plain, marked = (self._backend.encode("a", add_special_tokens=marks).ids for marks in (False, True))
        return next((marked[:n] for n in range(len(marked)) if marked[n : n + len(plain)] == plain), [])

    def _encode_behind_keys(self, texts: list[str]) -> list[list[int]]:
        return encode_all(self._inner, texts)

    @property
    def _eos_token(self) -> str:
        return _token_text(self.settings.get("eos_token")) or END_OF_TEXT

    def _specials(self) -> dict[str, Any]:
        """The special tokens by the names that transformers has for them, such as are tokens here."""
        named = {name: _token_text(self.settings.get(name)) for name in NAMED} | {"eos_token": self._eos_token}
        if self.has_keys:
            named["pad_token"] = self._eos_token
        listed = [_token_text(token) for name in LISTED for token in _as_list(self.settings.get(name))]
        listed += [key for key in self._keys if self.has_keys]
        specials: dict[str, Any] = {name: token for name, token in named.items() if token and self._has(token)}
        others = [token for token in dict.fromkeys(listed) if token and self._has(token)]
        return specials | ({"additional_special_tokens": others} if others else {})

    def _declare_special(self, tokens: Sequence[str]) -> None:
        """Make special those of `tokens` that a file has as ordinary added tokens, which any text can spell out."""
        added = {token.content: token for token in self._backend.get_added_tokens_decoder().values()}
        ordinary = [token for token in tokens if token in added and not added[token].special]
        self._backend.add_special_tokens([_special(token) for token in ordinary])

    def _has(self, token: str) -> bool:
        return self._backend.token_to_id(token) is not None

    def _id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise InputError(
                f"The tokenizer has no token {token!r}. Its tokenizer_config.json may belong to another model."
            )
        return int(found)


def _behind_others(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The backend for pieces that do not begin a text: such get no space in front where only a text's first one does.

    That is how newer SentencePiece tokenizers are written (Mistral's from v0.2 on); others need no second backend.
    """
    first = backend.pre_tokenizer
    if not isinstance(first, pre_tokenizers.Metaspace) or first.prepend_scheme != "first":
        return backend
    inner = tokenizers.Tokenizer.from_str(backend.to_str())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(first.replacement, prepend_scheme="never", split=first.split)
    inner.encode_special_tokens = True
    return inner


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}). Copy the file again from its source.") from None
    if not isinstance(settings, dict):
        raise InputError(f"{path}: must hold one JSON object.")
    return settings


def _token_text(token: object) -> str | None:
    """A token in settings is a string, or an object with its content (older files)."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _special(token: str) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(token, special=True, normalized=False)


def _readable_by_all(backend: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json with each merge as one text: tokenizers before 0.20 (transformers before 4.45) read no other.

    Merges of tokens that hold a space can only be written as pairs, and stay so.
    """
    merges = backend["model"].get("merges", [])
    if merges and not any(" " in part for merge in merges for part in merge):
        backend["model"]["merges"] = [" ".join(merge) for merge in merges]
    return backend


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
