"""`roslin ask` and `roslin chat`: one question from the command line, or a conversation in the terminal."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from roslin.cli.torchrun import works_for_first
from roslin.errors import InputError, UsageError

if TYPE_CHECKING:
    from roslin.answer import Answer, AnswerStream, Roslin
    from roslin.answer.answer import Keywords

MODEL_HELP = "A model: its folder or file (GGUF too), an adapter, a hub name, `base` (ships with Roslin) or `smollm2`."

Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Greedy = Annotated[bool, typer.Option("--greedy", help="Take the most probable token each time.")]
Temperature = Annotated[float, typer.Option(help="Sharpness of the draw; 0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Draw from the most probable tokens that together reach this probability.")]
TopK = Annotated[int, typer.Option(help="Draw from this many most probable tokens; 0 is off.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same answer. Without it a fresh one, shown at the end.")]
MaxNewTokens = Annotated[int, typer.Option(help="The longest answer, in tokens.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends an answer (repeat for several).")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Prompt = Annotated[str, typer.Option(help="auto, dolly or chat (the tokenizer's own template).")]
RopeScaling = Annotated[
    str | None,
    typer.Option(
        metavar="KIND:FACTOR",
        help="Stretch the model's positions beyond those it was trained on: linear:2, dynamic:2 or yarn:4, say.",
    ),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub model.")]
Cache = Annotated[
    str,
    typer.Option(help="Keys and values: auto, or fp8 for half of 16 bits' memory (GPUs: L4, RTX 40, H100 and later)."),
]
Draft = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="A smaller model with the same tokenizer that guesses ahead: faster where the model says the same.",
    ),
]


def ask(
    model: Model,
    instruction: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    context: Annotated[str | None, typer.Option(help="Text the answer should draw on; @FILE reads a file.")] = None,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 0.92,
    top_k: TopK = 0,
    seed: Seed = None,
    max_new_tokens: MaxNewTokens = 256,
    stop: Stop = None,
    returns: Annotated[int, typer.Option(help="Number of answers, each drawn anew.")] = 1,
    logprobs: Annotated[
        int | None, typer.Option(help="With --json: log-probability of each token, and of so many alternatives.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    prompt: Prompt = "auto",
    revision: Revision = None,
    rope_scaling: RopeScaling = None,
    draft: Draft = None,
    cache: Cache = "auto",
) -> None:
    """Ask a model one question. The answer goes to stdout as it comes; time and seed go to stderr."""
    if works_for_first():
        load(model, dtype, device, prompt, revision, rope_scaling, parallel=True)
    if logprobs is not None and not as_json:
        raise UsageError("--logprobs needs --json: a plain answer has no place for them.")
    told = False if logprobs is None else logprobs or True
    settings = drawing(greedy, temperature, top_p, top_k, seed, max_new_tokens, stop, told)
    instruction = read_stdin() if instruction == "-" else instruction
    context = read_context(context)
    roslin = load(model, dtype, device, prompt, revision, rope_scaling, draft, parallel=True, cache=cache)
    if returns == 1 and not as_json:
        answers = [show(roslin.stream(instruction, context, **settings))]
    else:
        found = roslin.answer(instruction, context, returns=returns, **settings)
        answers = found if isinstance(found, list) else [found]
        typer.echo(as_object(model, instruction, context, answers) if as_json else as_text(answers))
    for answer in answers:
        tell(timing_line(answer))


def chat(
    model: Model,
    greedy: Greedy = False,
    temperature: Temperature = 1.0,
    top_p: TopP = 0.92,
    top_k: TopK = 0,
    seed: Seed = None,
    max_new_tokens: MaxNewTokens = 256,
    stop: Stop = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    prompt: Prompt = "auto",
    revision: Revision = None,
    rope_scaling: RopeScaling = None,
    draft: Draft = None,
    cache: Cache = "auto",
) -> None:
    """Talk with a model in the terminal. `/help` lists what can be typed; Ctrl-D leaves."""
    from roslin.cli.conversation import Conversation

    if works_for_first():
        load(model, dtype, device, prompt, revision, rope_scaling, parallel=True)
    settings = drawing(greedy, temperature, top_p, top_k, seed, max_new_tokens, stop)
    roslin = load(model, dtype, device, prompt, revision, rope_scaling, draft, parallel=True, cache=cache)
    Conversation(roslin, settings).run()


def drawing(
    greedy: bool,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int | None,
    max_new_tokens: int,
    stop: list[str] | None,
    logprobs: bool | int = False,
) -> "Keywords":
    """How answers are drawn. Raises InputError, before a model is loaded, with all that is wrong."""
    from roslin.answer import Settings

    settings: Keywords = {
        "greedy": greedy,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        "stop": stop or (),
        "logprobs": logprobs,
    }
    Settings(**settings)
    return settings


def load(
    model: str,
    dtype: str,
    device: str,
    prompt: str,
    revision: str | None,
    rope_scaling: str | None = None,
    draft: str | None = None,
    *,
    parallel: bool = False,
    cache: str = "auto",
) -> "Roslin":
    """The model, with what it warns of told on stderr; `parallel` and `cache` as in `Roslin.load`."""
    from roslin.answer import Roslin

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_: tell(f"note: {message}")  # at once: a download takes its time
        return Roslin.load(
            model,
            dtype=dtype,
            device=device,
            prompt=prompt,
            revision=revision,
            rope_scaling=rope_scaling,
            draft=draft,
            parallel=parallel,
            cache=cache,
        )


def tell(text: str) -> None:
    """Say something on stderr, which is not part of the answer."""
    typer.echo(text, err=True)


def show(stream: "AnswerStream") -> "Answer":
    """Write an answer to stdout as it comes, and end its line even if it is broken off."""
    try:
        for piece in stream:
            sys.stdout.write(piece)
            sys.stdout.flush()
    finally:
        typer.echo()
    return stream.whole()


def timing_line(answer: "Answer") -> str:
    """How long an answer took, how it ended, and the seed that repeats it."""
    took = answer.timings
    ended = {"stop": "", "length": ", cut at the longest allowed length", "cancelled": ", stopped"}[
        answer.finish_reason
    ]
    return (
        f"[{took.tokens} tokens{ended}; first after {took.first_token:.2f} s, "
        f"{took.tokens_per_second:.0f} tokens/s; seed {answer.seed}]"
    )


def as_text(answers: Sequence["Answer"]) -> str:
    """Several answers, numbered."""
    return "\n\n".join(f"[{number}] {answer.text}" for number, answer in enumerate(answers, 1))


def as_object(model: str, instruction: str, context: str | None, answers: Sequence["Answer"]) -> str:
    """One JSON object with the question and its answers."""
    told = []
    for answer in answers:
        fields = asdict(answer)
        fields["timings"]["tokens_per_second"] = answer.timings.tokens_per_second
        told.append(fields)
    return orjson.dumps(
        {"model": model, "instruction": instruction, "context": context, "answers": told}, option=orjson.OPT_INDENT_2
    ).decode()


def read_stdin() -> str:
    """All of stdin, as `decoded`."""
    return decoded(sys.stdin.buffer.read(), "stdin")


def read_context(context: str | None) -> str | None:
    """A context as typed, or the content of the file that `@FILE` names. Raises InputError if it cannot be read."""
    if not context or not context.startswith("@"):
        return context
    path = typed_path(context[1:])
    try:
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: the context cannot be read ({error.strerror}).") from None


def typed_path(name: str) -> Path:
    """A path as a person types it, with `~`. Raises InputError when it cannot be one."""
    try:
        path = Path(name).expanduser()
    except RuntimeError:
        raise InputError(f"{name}: there is no such user's folder. Write the path out.") from None
    if "\0" in name:
        raise InputError(f"{name!r} cannot be a path: it holds a NUL character.")
    return path


def decoded(content: bytes, source: str) -> str:
    """Text of UTF-8 bytes without a byte-order mark and the blanks around it: a piped question is the one typed.

    Raises InputError naming `source` when they are not UTF-8.
    """
    try:
        return content.decode("utf-8").removeprefix("\ufeff").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not valid UTF-8 at byte {error.start}. Save it as UTF-8.") from None
