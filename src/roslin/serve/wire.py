"""What OpenAI's clients send, checked as a whole, and the call it makes.

Unknown fields are ignored, because clients send many. Two things differ from OpenAI's own models, because Dolly's
family was tuned on single instructions: a chat becomes one instruction with one context (see `ChatBody.question`), and
the prompt of a completion is taken as an instruction to be answered, not as a text to be gone on with. Where a client
gives no value, Dolly's hold: temperature 1, top_p 0.92, 256 new tokens.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from roslin.answer import Settings
from roslin.engine.noise import fresh_seed
from roslin.errors import InputError
from roslin.serve.worker import Call

MOST_ANSWERS = 128
MOST_ALTERNATIVES = 20
MOST_STOPS = 16


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_text(content: Any) -> Any:
    """A message's content as OpenAI has it: text, a list of parts, or nothing."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
        raise ValueError("every part must be of type text: this model reads nothing else")
    return "".join(part["text"] for part in content)


Texts = Annotated[list[str], BeforeValidator(_as_list)]
Stops = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list), Field(max_length=MOST_STOPS)]
Alternatives = Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class StreamOptions(_Checked):
    """What a stream tells beside its text."""

    include_usage: bool | None = None


class Body(_Checked):
    """What both ways of asking share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[FiniteFloat, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops | None = None
    n: Annotated[int, Field(ge=1, le=MOST_ANSWERS)] | None = None

    @classmethod
    def read(cls, content: bytes) -> Self:
        """A request's body. Raises InputError with all that is wrong with it."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise InputError("\n".join(_fault(fault["loc"], fault["msg"]) for fault in error.errors())) from None

    @property
    def with_usage(self) -> bool:
        """Whether a stream is to end with its token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _call(self, questions: list[tuple[str, str | None]], logprobs: bool | int) -> Call:
        given: dict[str, Any] = {"temperature": self.temperature, "top_p": self.top_p, "stop": self.stop}
        settings = Settings(**{k: v for k, v in given.items() if v is not None}, logprobs=logprobs)
        seed = fresh_seed() if self.seed is None else self.seed
        return Call(questions, settings, seed, self.n or 1, self.max_completion_tokens or self.max_tokens)


class Message(_Checked):
    """One turn of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[str, BeforeValidator(_as_text)] = ""


class ChatBody(Body):
    """A body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.messages[-1].role != "user":
            raise ValueError("messages: the last one must be the user's: it is the question")
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self

    @property
    def question(self) -> tuple[str, str | None]:
        """The last message is the instruction; the ones before it make its context, and none make none.

        System messages stand as they are, turns as `User: …`, `Assistant: …`, in their order, a blank line between
        two. Empty messages are left out.
        """
        *before, last = self.messages
        context = "\n\n".join(_turn(message) for message in before if message.content.strip())
        return last.content, context or None

    def call(self) -> Call:
        """What the model is asked."""
        return self._call([self.question], (self.top_logprobs or True) if self.logprobs else False)


class TextBody(Body):
    """A body of /v1/completions; each prompt is an instruction."""

    prompt: Annotated[Texts, Field(min_length=1)]
    logprobs: Alternatives | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        answers = len(self.prompt) * (self.n or 1)
        if answers > MOST_ANSWERS:
            raise ValueError(
                f"{len(self.prompt)} prompts with n {self.n or 1} ask for {answers} answers; at most "
                f"{MOST_ANSWERS} go into one request"
            )
        return self

    def call(self) -> Call:
        """What the model is asked."""
        return self._call(
            [(prompt, None) for prompt in self.prompt], False if self.logprobs is None else self.logprobs or True
        )


def _turn(message: Message) -> str:
    if message.role in ("system", "developer"):
        return message.content
    return f"{message.role.capitalize()}: {message.content}"


def _fault(place: tuple[int | str, ...], what: str) -> str:
    field = ".".join(str(part) for part in place)
    what = what.removeprefix("Value error, ")
    return f"{field}: {what}." if field else f"{what}."
