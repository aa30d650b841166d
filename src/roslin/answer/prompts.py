"""How a model is asked: in Dolly's prompt, or in its own chat template."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol

import tokenizers

from roslin import prompt
from roslin.errors import InputError, UsageError
from roslin.records.record import Record
from roslin.tokens import Tokenizer, encode_all

PromptKind = Literal["auto", "dolly", "chat"]

PLACE = "\ue000"
"""A content that no template holds itself: a character without a meaning."""

NOT_TUNED = (
    "This model's tokenizer has neither Dolly's keys nor a chat template: it was not tuned to follow instructions. "
    "It is asked in Dolly's prompt all the same; expect it to go on writing rather than to answer."
)


class Prompts(Protocol):
    """How one model is asked and how its answers end."""

    @property
    def textual_end(self) -> bool:
        """Whether the end key is plain text to this model."""
        ...

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    def ids(self, instruction: str, context: str | None) -> list[int]:
        """The prompt's ids."""
        ...

    def scored_ids(self, instruction: str, context: str | None, response: str) -> tuple[list[int], int]:
        """The ids of prompt, response and end, and where the response starts."""
        ...


class DollyPrompts:
    """Dolly's prompt; its keys are tokens where the tokenizer has them, else plain text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Ask in the words that `tokenizer` knows."""
        self._tokenizer = tokenizer
        self.textual_end = not tokenizer.has_keys

    @property
    def stop_ids(self) -> frozenset[int]:
        """The end key and the end of text."""
        return frozenset((self._tokenizer.end_id, self._tokenizer.eos_id))

    def ids(self, instruction: str, context: str | None) -> list[int]:
        """The prompt's ids."""
        return self._tokenizer.prompt_ids(instruction, context)

    def scored_ids(self, instruction: str, context: str | None, response: str) -> tuple[list[int], int]:
        """The very ids that tuning takes its loss on: the response, two newlines and the end key."""
        if not self.textual_end:
            record = Record(instruction=instruction, context=context or "", response=response)
            example = self._tokenizer.example(record)
            return example.ids, example.answer_start
        start = self.ids(instruction, context)
        return start + self._tokenizer.encode(f"{response}\n\n{prompt.END_KEY}"), len(start)


@dataclass(frozen=True)
class ChatPrompts:
    """A model's chat template, with the instruction (and its context) as the user's one message."""

    template: str
    names: Mapping[str, str]
    backend: tokenizers.Tokenizer
    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    textual_end: bool = False

    @classmethod
    def read(cls, model: Path, tokenizer: Tokenizer) -> "ChatPrompts | None":
        """The template of a model's folder or GGUF file; None when it has none."""
        template = _template(model, tokenizer.settings)
        if template is None:
            return None
        tokens = {name: _content(value) for name, value in tokenizer.settings.items() if name.endswith("_token")}
        # As in transformers, a token that is null has no name in the template, and so is written as nothing.
        names = {name: content for name, content in tokens.items() if content is not None}
        ends = frozenset({tokenizer.eos_id, *tokenizer.turn_ends, *_generation_ends(model)})
        # A second backend: in the template special tokens are meant, in what people write they are not.
        return cls(template, names, tokenizer.marked_backend(), tokenizer, ends)

    def ids(self, instruction: str, context: str | None) -> list[int]:
        """The prompt's ids. Special tokens that a person wrote into the instruction are encoded as plain text."""
        content = prompt.with_context(instruction, context)
        text = self._render(content)
        if not self._holds_special(content):
            return self._encode(text)
        # The template may hold the same tokens: where the content stands is seen by another in its place.
        before = self._render(PLACE).partition(PLACE)[0]
        if not text.startswith(before + content):
            raise InputError("The instruction holds special tokens, and the chat template rewrites it: reword it.")
        after = text[len(before + content) :]
        return self._encode(before) + self.tokenizer.encode(content) + self._encode(after)

    def scored_ids(self, instruction: str, context: str | None, response: str) -> tuple[list[int], int]:
        """The prompt, the response and the end of text."""
        start = self.ids(instruction, context)
        return [*start, *self.tokenizer.encode(response), self.tokenizer.eos_id], len(start)

    def _encode(self, text: str) -> list[int]:
        return encode_all(self.backend, [text])[0]

    def _holds_special(self, text: str) -> bool:
        return any(token.content in text for token in self.backend.get_added_tokens_decoder().values())

    def _render(self, content: str) -> str:
        from jinja2 import ext
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # The settings that transformers renders templates with, so that the same template gives the same text.
        rules = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[ext.loopcontrols])
        rules.filters["tojson"] = lambda value, **layout: json.dumps(value, ensure_ascii=False, **layout)
        rules.globals |= {"raise_exception": _refuse, "strftime_now": lambda layout: datetime.now().strftime(layout)}
        # Templates ask whether these two are none, which what is not there is not.
        nothing = {"tools": None, "documents": None}
        messages = [{"role": "user", "content": content}]
        try:
            compiled = rules.from_string(self.template)
            return str(compiled.render(messages=messages, add_generation_prompt=True, **nothing, **self.names))
        except Exception as error:  # a template is a program: its expressions can fail in any way
            raise InputError(f"The model's chat template cannot be rendered: {error}. Use prompt=dolly.") from None


def choose_prompts(kind: str, tokenizer: Tokenizer, model: Path | None) -> tuple[Prompts, str | None]:
    """The way to ask a model, and what a person should be told about it (None when it fits).

    `model` is its folder or GGUF file. `auto` is Dolly's prompt where the tokenizer has the keys, else the model's
    chat template, else Dolly's prompt as plain text. Raises UsageError for an unknown kind and InputError for `chat`
    without a template.
    """
    if kind not in ("auto", "dolly", "chat"):
        raise UsageError(f"prompt is {kind!r}; it must be auto, dolly or chat.")
    if kind == "dolly" or (kind == "auto" and tokenizer.has_keys):
        return DollyPrompts(tokenizer), None
    chat = ChatPrompts.read(model, tokenizer) if model else None
    if chat is not None:
        return chat, None
    if kind == "chat":
        raise InputError("prompt is chat, and the model has no chat template. Use auto or dolly.")
    return DollyPrompts(tokenizer), NOT_TUNED


def _template(model: Path, settings: Mapping[str, Any]) -> str | None:
    """A file of its own in a folder, or a setting: one text, or a list of named ones."""
    path = model / "chat_template.jinja"
    if path.is_file():
        return _text(path)
    value = settings.get("chat_template")
    if isinstance(value, list):
        return next((str(entry["template"]) for entry in value if entry.get("name") == "default"), None)
    return value if isinstance(value, str) else None


def _generation_ends(model: Path) -> list[int]:
    """The ids that a folder's generation_config.json ends an answer with."""
    path = model / "generation_config.json"
    if not path.is_file():
        return []
    try:
        ends = json.loads(_text(path))["eos_token_id"]
    except KeyError:
        return []
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: must hold one JSON object ({error}). Copy the file again from its source.") from None
    found = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(isinstance(end, int) for end in found):
        raise InputError(f"{path}: eos_token_id is {ends!r}; it must be a token's id or a list of them.")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 at byte {error.start}. Copy it again from its source.") from None


def _content(token: Any) -> str | None:
    """A token in settings is a string, or an object with its content (older files)."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _refuse(message: str) -> NoReturn:
    raise ValueError(message)
