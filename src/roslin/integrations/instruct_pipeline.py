"""The instruction pipeline of transformers for models tuned on Dolly's prompt. It needs torch and transformers alone.

It stands in the model's folder, where transformers finds it:

    from transformers import pipeline
    ask = pipeline(model=FOLDER, torch_dtype=torch.bfloat16, trust_remote_code=True, device_map="auto")
    ask("Explain to me the difference between nuclear fission and fusion.")[0]["generated_text"]

transformers 4.28 and later, 5 included. Licence: Apache-2.0.
"""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, Pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

INTRO = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
INSTRUCTION_KEY = "### Instruction:"
RESPONSE_KEYS = ("### Response:\n", "### Response:")
"""The key as a token: with its newline, or (dolly-v1-6b) without it."""
END_KEY = "### End"

DEFAULTS: dict[str, Any] = {"do_sample": True, "top_p": 0.92, "top_k": 0}
"""What `generate` is told where the caller says nothing."""
SAMPLING_ONLY = ("top_p", "top_k")
MAX_NEW_TOKENS = 256
FEW_TOKENS = 16
"""With fewer left to answer in, `max_length` is likely to have been taken for the length of the answer."""

_WRITTEN_END = re.compile(r"#\s*End")


class InstructionTextGenerationPipeline(Pipeline):  # type: ignore[misc]
    """Asks a model in Dolly's prompt and gives the answer alone: a list of `{"generated_text": answer}`.

    A list of instructions gives a list of such lists. An instruction is a text, or a mapping with `instruction` and
    perhaps `context`. Keyword arguments, at construction or at a call (which goes before):

    - `context`: a text that the instruction is about; for a list of instructions, one for all or a list of them.
    - `return_full_text`: put the instruction and a newline before the answer.
    - `max_length`: tokens of prompt and answer together, where no `max_new_tokens` (256) is given.
    - `batch_size`, `num_workers`: as in every pipeline.
    - all others go to `generate`; it samples with top_p 0.92 and top_k 0, and always ends at `### End`.
    """

    # What older versions of transformers do not know they ignore.
    _load_tokenizer = True
    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As every pipeline; see the class for the keyword arguments. The tokenizer is set to pad on the left."""
        super().__init__(*args, **kwargs)
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Answer one instruction or many. `text_inputs` and `inputs` are other names of the first argument."""
        for name in ("text_inputs", "inputs"):
            if name in kwargs:
                args = (kwargs.pop(name), *args)
        if not args:
            raise TypeError("The pipeline was called without an instruction.")
        asked, *rest = args
        if isinstance(kwargs.get("context"), (list, tuple)):
            asked = _with_contexts(asked, kwargs.pop("context"))
        if isinstance(asked, list) and not asked:
            return []
        return super().__call__(asked, *rest, **kwargs)

    def _sanitize_parameters(
        self, context: str | None = None, return_full_text: bool | None = None, **generation: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before = {} if context is None else {"context": context}
        after = {} if return_full_text is None else {"return_full_text": return_full_text}
        return before, generation, after

    def preprocess(self, question: Any, context: str | None = None) -> dict[str, Any]:
        """One question as a row of ids [1, T], with its instruction. Raises TypeError for what is no question."""
        instruction = question
        if isinstance(question, dict):
            instruction, context = question.get("instruction"), question.get("context") or context
        if not isinstance(instruction, str):
            raise TypeError(
                "An instruction is a text, or a mapping with the text `instruction` and perhaps `context`; this is a "
                f"{type(question).__name__}: {question!r:.100}"
            )
        ids = torch.tensor([self._prompt_ids(f"{instruction}\n\nInput:\n{context}" if context else instruction)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "instruction_text": instruction}

    def _forward(self, inputs: dict[str, Any], **given: Any) -> dict[str, Any]:
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        settings, limits = self._settings(mask.sum(1).tolist(), given)
        sequences = self.model.generate(
            input_ids=ids.to(self.model.device),
            attention_mask=mask.to(self.model.device),
            max_new_tokens=max(limits),
            **settings,
        )
        answers = sequences[:, ids.shape[1] :].reshape(len(ids), len(sequences) // len(ids), -1)
        # Tensors with a row a question: that is what transformers splits batches by, and by the first of them.
        return {"answer_ids": answers, "limit": torch.tensor(limits), "instruction_text": inputs["instruction_text"]}

    def postprocess(self, outputs: dict[str, Any], return_full_text: bool = False) -> list[dict[str, str]]:
        """A record for each sequence that was generated."""
        [limit] = outputs["limit"].tolist()
        [sequences] = outputs["answer_ids"].tolist()
        before = f"{outputs['instruction_text']}\n" if return_full_text else ""
        return [{"generated_text": before + self._answer(ids[:limit])} for ids in sequences]

    def _settings(self, prompt_lengths: list[int], given: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        """What `generate` is told, and how many tokens each answer may have."""
        given = dict(given)
        config = given.pop("generation_config", None)
        if config is not None:
            stated = {name: value for name, value in config.to_diff_dict().items() if name != "transformers_version"}
            given = {**stated, **given}
        limits = self._limits(prompt_lengths, given.pop("max_new_tokens", None), given.pop("max_length", None))
        settings = {**DEFAULTS, **given}
        if not settings["do_sample"]:
            settings = {name: value for name, value in settings.items() if name in given or name not in SAMPLING_ONLY}
        settings["eos_token_id"] = sorted({*self._stop_ids(), *_as_list(settings.get("eos_token_id"))})
        settings.setdefault("pad_token_id", self.tokenizer.pad_token_id)
        settings["logits_processor"] = LogitsProcessorList(
            [*(settings.get("logits_processor") or []), _KnownTokens(len(self.tokenizer))]
        )
        return settings, limits

    def _limits(self, prompt_lengths: list[int], max_new_tokens: int | None, max_length: int | None) -> list[int]:
        """How many tokens each answer may have. Raises ValueError where there is no room for one."""
        if max_new_tokens is None and max_length is not None:
            limits = [max_length - length for length in prompt_lengths]
            if min(limits) < 1:
                raise ValueError(
                    f"max_length is {max_length}, and counts prompt and answer: the prompt alone has "
                    f"{max(prompt_lengths)} tokens. Raise it, or give max_new_tokens, which counts the answer."
                )
            if min(limits) < FEW_TOKENS:
                warnings.warn(
                    f"max_length is {max_length}, and counts prompt and answer: {min(limits)} tokens are left for the "
                    "answer. max_new_tokens counts the answer alone.",
                    stacklevel=2,
                )
        else:
            limits = [MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens] * len(prompt_lengths)
        self._check_positions(prompt_lengths, limits)
        return limits

    def _check_positions(self, prompt_lengths: list[int], limits: list[int]) -> None:
        positions = getattr(self.model.config, "max_position_embeddings", None)
        for length, limit in zip(prompt_lengths, limits):  # noqa: B905 - older versions of Python lack `strict`
            if positions is not None and length + limit > positions:
                raise ValueError(
                    f"The prompt has {length} tokens and the answer may have {limit}, and the model has {positions} "
                    "positions. Shorten the instruction or its context, or lower max_new_tokens."
                )

    def _prompt_ids(self, asked: str) -> list[int]:
        before, question, after = f"{INTRO}\n\n{INSTRUCTION_KEY}", f"\n{asked}\n\n", RESPONSE_KEYS[0]
        if not any(token in asked for token in self.tokenizer.all_special_tokens):
            return self._encoded(before + question + after)
        # Keys that a person wrote into the instruction are text and not tokens: they would end or restart the prompt.
        if self._end_id is None:
            return self._encoded_as_text(before + question + after)
        written = self._encoded_as_text(question, add_special_tokens=False)
        return [*self._encoded(before), *written, *self._encoded(after, add_special_tokens=False)]

    def _encoded(self, text: str, **how: Any) -> list[int]:
        return list(self.tokenizer(text, **how)["input_ids"])

    def _encoded_as_text(self, text: str, **how: Any) -> list[int]:
        try:
            return self._encoded(text, split_special_tokens=True, **how)
        except TypeError:  # older versions have no such switch: special tokens are cut behind their first character
            specials = "|".join(
                f"(?<={re.escape(s[0])})(?={re.escape(s[1:])})" for s in self.tokenizer.all_special_tokens
            )
            first, *others = re.split(specials, text)
            rest = [i for piece in others for i in self._encoded(piece, add_special_tokens=False)]
            return [*self._encoded(first, **how), *rest]

    @property
    def _end_id(self) -> int | None:
        """The id of the end key; None where the tokenizer does not have the keys as tokens."""
        added = self.tokenizer.get_added_vocab()
        return added.get(END_KEY) if any(key in added for key in RESPONSE_KEYS) else None

    def _stop_ids(self) -> list[int]:
        return [i for i in (self._end_id, self.tokenizer.eos_token_id) if i is not None]

    def _answer(self, ids: list[int]) -> str:
        """What stands before the end key, stripped."""
        stops = self._stop_ids()
        end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
        text = str(self.tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if self._end_id is None and (written := _WRITTEN_END.search(text)):
            text = text[: written.start()].rstrip("#")
        return text.strip()


class _KnownTokens(LogitsProcessor):  # type: ignore[misc]
    """Keeps the rows of a head that stand for no token (padding of its size) from being drawn."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores.masked_fill(torch.arange(scores.shape[-1], device=scores.device) >= self.count, -torch.inf)


def _with_contexts(asked: Any, contexts: Sequence[str | None]) -> list[dict[str, Any]]:
    if not isinstance(asked, (list, tuple)) or len(asked) != len(contexts):
        raise ValueError("context is a list: the instructions must be a list of the same length.")
    return [{"instruction": text, "context": context} for text, context in zip(asked, contexts)]  # noqa: B905


def _as_list(ids: Any) -> list[int]:
    return [] if ids is None else list(ids) if isinstance(ids, (list, tuple)) else [ids]
