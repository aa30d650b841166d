"""The interface of transformers' instruction pipeline on Roslin's engine: same arguments, same results."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch

from roslin.answer import AnswerStream, Roslin
from roslin.answer.answer import Keywords
from roslin.answer.device import DTYPES
from roslin.errors import InputError, UsageError

Record = dict[str, str]
Asked = str | Mapping[str, Any]
"""An instruction, or a mapping with `instruction` and perhaps `context`."""

FEW_TOKENS = 16
"""As in instruct_pipeline.py."""
AT_ONCE = 16


@dataclass(frozen=True)
class How:
    """The keyword arguments of a call: those of transformers' `generate` that the engine knows, and the pipeline's.

    `max_length` counts prompt and answer, and only where no `max_new_tokens` (256) is given. `streamer` and
    `stopping_criteria` are transformers': with either, answers are drawn one after another. `batch_size` is how many
    of an iterable are asked together; a list is asked whole. A `seed` repeats answers; None draws a fresh one for each.
    """

    return_full_text: bool = False
    context: str | Sequence[str | None] | None = None
    num_return_sequences: int = 1
    max_new_tokens: int | None = None
    max_length: int | None = None
    do_sample: bool = True
    temperature: float = 1.0
    top_p: float = 0.92
    top_k: int = 0
    streamer: Any = None
    stopping_criteria: Sequence[Callable[..., Any]] | None = None
    batch_size: int = AT_ONCE
    seed: int | None = None

    def told(self, arguments: Mapping[str, Any]) -> Self:
        """With other arguments besides. Raises UsageError for those that there are not."""
        known = [field.name for field in fields(self)]
        unknown = sorted(arguments.keys() - set(known))
        if unknown:
            raise UsageError(
                f"Roslin's engine has no argument {', '.join(unknown)}; it has {', '.join(known)}. "
                "transformers' own pipeline on the same folder passes all others to generate."
            )
        return replace(self, **arguments)

    def settings(self, max_new_tokens: int) -> Keywords:
        """What the engine is told."""
        return Keywords(
            max_new_tokens=max_new_tokens,
            greedy=not self.do_sample,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed,
        )


class InstructionPipeline:
    """Asks a model as `pipeline(model=FOLDER, trust_remote_code=True)` of transformers does, on Roslin's engine.

    An instruction gives a list of records `{"generated_text": answer}`, a list of instructions a list of such lists,
    and any other iterable an iterator over them. Arguments are those of `How`, at construction or at a call.
    """

    task = "text-generation"

    def __init__(self, roslin: Roslin, **arguments: Any) -> None:
        """Ask `roslin`. Raises UsageError for an argument that is not known."""
        self.model = roslin
        self._how = How().told(arguments)

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer as transformers has it, which its streamers want."""
        from transformers import AutoTokenizer

        with TemporaryDirectory() as folder:
            self.model.tokenizer.save(Path(folder))
            return AutoTokenizer.from_pretrained(folder)

    def __call__(self, text_inputs: Asked | Iterable[Asked], **arguments: Any) -> Any:
        """Answer one instruction, a list, or one after another what an iterable gives.

        Raises InputError for what cannot be asked and UsageError for an argument that is not known, before any work.
        """
        how = self._how.told(arguments)
        if isinstance(text_inputs, (str, Mapping)):
            [records] = self._answered([text_inputs], how)
            return records
        if isinstance(text_inputs, list):
            return self._answered(text_inputs, how)
        return self._one_batch_after_another(iter(text_inputs), how)

    def _one_batch_after_another(self, asked: Iterator[Asked], how: How) -> Iterator[list[Record]]:
        while batch := list(islice(asked, how.batch_size)):
            yield from self._answered(batch, how)

    def _answered(self, asked: Sequence[Asked], how: How) -> list[list[Record]]:
        questions = _questions(asked, how.context)
        limits = [self._limit(question, how) for question in questions]
        if how.streamer is not None or how.stopping_criteria:
            found = [self._told_as_it_comes(*each, how) for each in zip(questions, limits, strict=True)]
        else:
            found = self._together(questions, limits, how)
        return [_records(question[0], texts, how) for question, texts in zip(questions, found, strict=True)]

    def _together(self, questions: Sequence[tuple[str, str | None]], limits: list[int], how: How) -> list[list[str]]:
        """The texts for each question, all those run together that may have as many tokens."""
        found: dict[int, list[str]] = {}
        for limit in sorted(set(limits)):
            places = [place for place, own in enumerate(limits) if own == limit]
            count = how.num_return_sequences
            chosen = [questions[place] for place in places]
            answers = self.model.answer_all(chosen, returns=count, **how.settings(limit))
            texts = [answer.text for answer in answers]
            found |= {place: texts[n * count : (n + 1) * count] for n, place in enumerate(places)}
        return [found[place] for place in range(len(questions))]

    def _told_as_it_comes(self, question: tuple[str, str | None], limit: int, how: How) -> list[str]:
        if how.num_return_sequences != 1:
            raise UsageError("num_return_sequences must be 1 where there is a streamer or a stopping criterion.")
        stream = self.model.stream(*question, **how.settings(limit))
        prompt = self.model.prompts.ids(*question)
        if how.streamer is not None:
            how.streamer.put(torch.tensor([prompt]))
        _listen(stream, prompt, how)
        if how.streamer is not None:
            how.streamer.end()
        return [stream.whole().text]

    def _limit(self, question: tuple[str, str | None], how: How) -> int:
        """How many tokens the answer may have."""
        if how.max_new_tokens is not None or how.max_length is None:
            return 256 if how.max_new_tokens is None else how.max_new_tokens
        prompt = len(self.model.prompts.ids(*question))
        left = how.max_length - prompt
        if left < 1:
            raise InputError(
                f"max_length is {how.max_length}, and counts prompt and answer: the prompt alone has {prompt} tokens. "
                "Raise it, or give max_new_tokens, which counts the answer."
            )
        if left < FEW_TOKENS:
            warnings.warn(
                f"max_length is {how.max_length}, and counts prompt and answer: {left} tokens are left for the answer. "
                "max_new_tokens counts the answer alone.",
                stacklevel=2,
            )
        return left


def pipeline(
    model: str | Path | Roslin,
    *,
    torch_dtype: torch.dtype | str | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | None = None,
    device: int | str | torch.device | None = None,
    revision: str | None = None,
    trust_remote_code: bool | None = None,
    **arguments: Any,
) -> InstructionPipeline:
    """The instruction pipeline of a model on Roslin's engine: what `transformers.pipeline(model=…)` gives for Dolly's.

    `model` is whatever `Roslin.load` takes, or a loaded one. `dtype` (`torch_dtype` is its older name) is a torch dtype
    or its name, `device_map` "auto" or one device, `device` a torch device or a GPU's number. `trust_remote_code` is
    taken and not needed: no code of a model's folder is run. `arguments` are those of `How`; `batch_size` is also how
    many answers run at once. Raises UsageError for an argument that is not known, and what `Roslin.load` raises.
    """
    how = How().told(arguments)
    if not isinstance(model, Roslin):
        model = Roslin.load(
            str(model),
            dtype=_dtype_name(dtype if dtype is not None else torch_dtype),
            device=_device_name(device if device is not None else device_map),
            revision=revision,
            max_batch=how.batch_size,
        )
    return InstructionPipeline(model, **arguments)


def _dtype_name(dtype: torch.dtype | str | None) -> str:
    names = {value: name for name, value in DTYPES.items()}
    return "auto" if dtype is None else names.get(dtype, str(dtype)) if isinstance(dtype, torch.dtype) else dtype


def _device_name(device: int | str | torch.device | None) -> str:
    """A GPU's number, -1 for the CPU, as in transformers; or a name."""
    if isinstance(device, int):
        return "cpu" if device < 0 else f"cuda:{device}"
    return "auto" if device is None else str(device)


def _questions(asked: Sequence[Asked], context: str | Sequence[str | None] | None) -> list[tuple[str, str | None]]:
    if context is not None and not isinstance(context, str):
        if len(context) != len(asked):
            raise UsageError(f"context is a list of {len(context)}, and {len(asked)} instructions were given.")
        return [_question(one, about) for one, about in zip(asked, context, strict=True)]
    return [_question(one, context) for one in asked]


def _question(asked: Asked, context: str | None) -> tuple[str, str | None]:
    """Instruction and context; a context of its own goes before the call's."""
    if isinstance(asked, Mapping):
        return asked.get("instruction", ""), asked.get("context") or context
    return asked, context


def _records(instruction: str, texts: Sequence[str], how: How) -> list[Record]:
    before = f"{instruction}\n" if how.return_full_text else ""
    return [{"generated_text": before + text} for text in texts]


def _listen(stream: AnswerStream, prompt: list[int], how: How) -> None:
    """Hand each id to the streamer as it comes, and end the answer where a criterion says so."""
    told = 0
    while stream.answer is None or told < len(stream.ids):
        if next(stream, None) is None and told == len(stream.ids):
            return
        for token in stream.ids[told:]:
            told += 1
            if how.streamer is not None:
                how.streamer.put(torch.tensor([token]))
            ids = torch.tensor([[*prompt, *stream.ids[:told]]])
            if any(bool(criterion(ids, None)) for criterion in how.stopping_criteria or ()):
                stream.close()
                return
