"""Any decoder that transformers loads, as a scorer of questions: other models in our table.

It puts questions and sums log-likelihoods as HFLM of the LM Evaluation Harness does (lm_eval 0.4.13,
models/huggingface.py), batched by tokens instead of by rows.
"""

import hashlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from roslin.answer.device import DTYPES, pick_device
from roslin.engine import ScoreRow
from roslin.errors import InputError, MachineError, UsageError, out_of_memory
from roslin.evaluate.harness_pairs import Encoder, ending_blank, fitting
from roslin.evaluate.question import Question
from roslin.evaluate.scorer import ChoiceScore, answering, pairs
from roslin.evaluate.scores import Profile
from roslin.evaluate.tasks import as_instruction
from roslin.model.fingerprint import fingerprint
from roslin.model.grad_mode import no_grad

DEFAULT_LENGTH = 2048
"""Positions of a model whose settings name no number: HFLM's."""
NO_LENGTH = 10**9
"""From here on a tokenizer's model_max_length means that it names none."""


class TransformersScorer:
    """A transformers model and its tokenizer."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        fingerprint: str,
        profile: Profile = "raw",
        tokens_per_pass: int = 4096,
    ) -> None:
        """Ask `model` in `profile`; `instruct` is the tokenizer's chat template, and InputError where it has none.

        A pass reads at most `tokens_per_pass` tokens, padding included, or one longer question.
        """
        if profile == "instruct" and not getattr(tokenizer, "chat_template", None):
            raise InputError(f"{name} has no chat template to be asked in: only the profile raw is possible.")
        self.name, self.fingerprint, self.profile = name, fingerprint, profile
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.length = _positions(model.config, tokenizer)
        self._model, self._tokenizer = model.eval(), tokenizer
        self._tokens_per_pass = tokens_per_pass
        self._encoder = _encoder(tokenizer)

    @classmethod
    @no_grad
    def load(
        cls,
        name: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        trust_remote_code: bool = False,
        profile: Profile = "raw",
        tokens_per_pass: int = 4096,
    ) -> Self:
        """Load a folder or a hub name with AutoModelForCausalLM and AutoTokenizer.

        `dtype` auto is float32 on a CPU and bfloat16 on a GPU (float16 where it lacks that). Code out of a repository
        is run only with `trust_remote_code`. Raises InputError for what transformers cannot load as a decoder,
        UsageError and MachineError as `pick_device`.
        """
        where = pick_device(device)
        version = revision or "main"
        options = {"revision": version, "trust_remote_code": trust_remote_code}
        model, tokenizer = _loaded(name, _dtype(dtype, where), options)
        mark = _fingerprint(name, version)
        return cls(
            model.to(where), tokenizer, name=name, fingerprint=mark, profile=profile, tokens_per_pass=tokens_per_pass
        )

    def score(self, questions: Sequence[Question]) -> Iterator[tuple[int, list[ChoiceScore]]]:
        """Each question's number and its scores, longest questions first.

        Raises InputError for a question that cannot be asked, before any work, and MachineError, naming the question,
        for a log-likelihood that is no number.
        """
        whole = self._rows(questions)
        rows = [
            [fitting(row, self.length, f"question {number}") for row in found] for number, found in enumerate(whole, 1)
        ]
        for part in _parts(rows, self._tokens_per_pass):
            sums = iter(self._sums([row for number in part for row in rows[number]]))
            for number in part:
                scores = [
                    ChoiceScore(next(sums), row.scored, truncated=row.read > self.length) for row in whole[number]
                ]
                self._check(number, questions[number], scores)
                yield number, scores

    def _rows(self, questions: Sequence[Question]) -> list[list[ScoreRow]]:
        raw = self.profile == "raw"
        rows = iter(self._encoder.rows(pairs(questions)) if raw else self._instruct_rows(questions))
        return [[next(rows) for _ in question.choices] for question in questions]

    def _instruct_rows(self, questions: Sequence[Question]) -> list[ScoreRow]:
        """Each context as the user's message, the continuation as the beginning of the answer."""
        asked = pairs([as_instruction(question) for question in questions])
        contexts = list(dict.fromkeys(context for context, _ in asked))
        prompts = dict(zip(contexts, self._encoder.texts([self._asked(c) for c in contexts], False), strict=True))
        answers = self._encoder.texts([continuation for _, continuation in asked], False)
        return answering([prompts[context] for context, _ in asked], answers, asked)

    def _asked(self, context: str) -> str:
        messages = [{"role": "user", "content": context}]
        return str(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _sums(self, rows: Sequence[ScoreRow]) -> list[float]:
        """Each row's log-likelihood in nats, from one pass; rows that read the same ids are read once."""
        try:
            return self._read(rows)
        except Exception as error:
            if out_of_memory(error):
                raise MachineError(
                    f"Out of memory on {self._model.device}: read fewer tokens a pass (now {self._tokens_per_pass})."
                ) from error
            raise

    @no_grad
    def _read(self, rows: Sequence[ScoreRow]) -> list[float]:
        reads = [tuple(row.ids[:-1]) for row in rows]
        places = {ids: place for place, ids in enumerate(dict.fromkeys(reads))}
        logits_BTV = self._logits(list(places), first=min(row.start for row in rows) - 1)
        behind = max(map(len, reads)) - logits_BTV.shape[1]  # positions whose logits were not made
        sums = []
        for row, ids in zip(rows, reads, strict=True):
            logits_CV = logits_BTV[places[ids], row.start - 1 - behind : row.read - behind].float()
            targets_C = torch.tensor(row.ids[row.start :], device=logits_CV.device)
            sums.append((logits_CV.gather(-1, targets_C[:, None])[:, 0] - logits_CV.logsumexp(-1)).sum())
        return [float(value) for value in torch.stack(sums).tolist()]

    def _logits(self, inputs: Sequence[Sequence[int]], first: int) -> Tensor:
        """Logits of inputs padded on the right, [B, T, V]; of the positions from `first` on where the model allows."""
        width = max(map(len, inputs))
        ids_BT = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in inputs], device=self._model.device)
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in inputs], device=self._model.device)
        keeps = "logits_to_keep" in inspect.signature(self._model.forward).parameters
        kept = {"logits_to_keep": width - first} if keeps else {}
        found: Tensor = self._model(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, **kept).logits
        return found

    def _check(self, number: int, question: Question, scores: Sequence[ChoiceScore]) -> None:
        values = [score.log_likelihood for score in scores]
        if not torch.tensor(values).isfinite().all():
            raise MachineError(
                f"{self.name} in {self.dtype} gives log-likelihoods that are no numbers ({values}) for question "
                f"{number + 1}, {question.choices[0].context[:80]!r}. Try dtype float32; else its weights are damaged."
            )


def _loaded(name: str, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, Any]:
    """Model and tokenizer. Raises InputError, with transformers' own words, for what it cannot load."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(name, **options)
        if config.is_encoder_decoder:
            raise InputError(
                f"{name} is an encoder-decoder ({config.model_type}); the table compares decoders alone, which read "
                "question and answer as one text."
            )
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, **options), tokenizer
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        if out_of_memory(error):
            raise MachineError(f"Out of memory while {name} was loaded: a smaller dtype needs less.") from error
        raise InputError(f"transformers cannot load {name!r} as a decoder: {_in_a_line(error)}") from error


def _fingerprint(name: str, revision: str) -> str:
    """The model's files and the version of transformers that runs them as a hash."""
    import transformers
    from transformers.utils import cached_file

    folder = (
        Path(name) if Path(name).is_dir() else Path(str(cached_file(name, "config.json", revision=revision))).parent
    )
    return hashlib.sha256(f"transformers {transformers.__version__} {fingerprint(folder)}".encode()).hexdigest()


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise UsageError(f"dtype is {name!r}; it must be auto, {', '.join(DTYPES)}.")
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


def _positions(config: Any, tokenizer: Any) -> int:
    """How many tokens the model reads at most: its settings' number, else its tokenizer's (as HFLM looks for it)."""
    decoder = getattr(config, "text_config", None) or config
    named = [getattr(decoder, name, None) for name in ("n_positions", "max_position_embeddings", "n_ctx")]
    found = next((int(value) for value in named if value), int(getattr(tokenizer, "model_max_length", NO_LENGTH)))
    return found if found < NO_LENGTH else DEFAULT_LENGTH


def _encoder(tokenizer: Any) -> Encoder:
    def texts(texts: Sequence[str], marks: bool) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = tokenizer(list(texts), add_special_tokens=marks)["input_ids"]
        return found

    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if prefix is None:
        raise InputError("The tokenizer names neither a beginning nor an end of text: no context can be empty for it.")
    special = ending_blank(tokenizer.all_special_tokens)
    return Encoder(texts, prefix, tokenizer.decode([prefix]), marks=True, ending_blank=special)


def _parts(questions: Sequence[Sequence[ScoreRow]], tokens: int) -> Iterator[list[int]]:
    """Numbers of questions, longest first, in parts of at most `tokens` tokens when all rows are padded alike."""
    longest = [max(row.read for row in rows) for rows in questions]
    part: list[int] = []
    rows = 0
    for number in sorted(range(len(questions)), key=lambda number: -longest[number]):
        if part and (rows + len(questions[number])) * longest[part[0]] > tokens:
            yield part
            part, rows = [], 0
        part.append(number)
        rows += len(questions[number])
    if part:
        yield part


def _in_a_line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return text if len(text) <= 600 else f"{text[:600]}…"
