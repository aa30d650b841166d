"""The model class that the LM Evaluation Harness knows as `roslin`: its three kinds of request on Roslin's engine."""

import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from tqdm import tqdm

from roslin import prompt as dolly
from roslin.answer import Roslin
from roslin.answer.prompts import NOT_TUNED, DollyPrompts
from roslin.engine import Engine, Request, RowScore, ScoreRow, score_groups
from roslin.errors import InputError, UsageError
from roslin.evaluate.harness_chat import Messages, render, template_text
from roslin.evaluate.harness_generate import GenerationSettings, cut, generate
from roslin.evaluate.harness_pairs import fitting
from roslin.evaluate.harness_text import HarnessText

TOKENS_PER_PASS = 4096
ANSWERS_AT_ONCE = 16
MAX_GEN_TOKS = 256
"""New tokens where a task names no number: HFLM's."""

log = logging.getLogger(__name__)


class RoslinLM(LM):  # type: ignore[misc]  # the harness has no types
    """A model of Roslin's for the LM Evaluation Harness; the arguments are HFLM's where they mean the same."""

    def __init__(
        self,
        pretrained: str | Roslin,
        revision: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        max_length: int | None = None,
        prefix_token_id: int | None = None,
        add_bos_token: bool | None = None,
        max_gen_toks: int = MAX_GEN_TOKS,
        prompt: str = "auto",
        rope_scaling: str | None = None,
        trust_remote_code: bool = False,
        **unknown: object,
    ) -> None:
        """Load a model as `roslin ask` does, or take one that is loaded.

        `pretrained` is a folder, an adapter, a GGUF file, `base`, or a hub name. `batch_size` n is a hint of how much
        memory there is, and changes no result: passes of n · max_length tokens where that is more than 4,096, and n
        answers at once; `auto` and 1, which the harness passes when nobody asks for a size, are 4,096 tokens and 16
        answers, and `max_batch_size` bounds n. `max_length` is the model's number of positions or less. `prompt` is how
        --apply_chat_template asks (auto, dolly or chat). `trust_remote_code` is what the harness passes on for data
        sets; no model's code is ever run. Raises UsageError for arguments that are not known, InputError for a model
        that cannot be loaded.
        """
        super().__init__()
        if unknown:
            raise UsageError(f"model_args that the model `roslin` does not have: {', '.join(unknown)}.")
        self._name = pretrained if isinstance(pretrained, str) else "roslin"
        self._revision = revision
        if isinstance(pretrained, str):
            pretrained = _load(pretrained, revision, dtype, device, prompt, rope_scaling)
        self._model = pretrained
        self._device = pretrained.decoder.device
        self.max_length = _positions(pretrained, max_length)
        self.max_gen_toks = _count("max_gen_toks", max_gen_toks)
        self._text = HarnessText(pretrained.tokenizer, add_bos_token=add_bos_token, prefix_token_id=prefix_token_id)
        rows = _rows(batch_size, max_batch_size)
        self._tokens_per_pass = max(TOKENS_PER_PASS, rows * self.max_length)
        self._engine = Engine(pretrained.decoder, pretrained.tokenizer.size, rows if rows > 1 else ANSWERS_AT_ONCE)

    @property
    def eot_token_id(self) -> int:
        """The id of the end of text."""
        return self._model.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The id that stands for an empty context."""
        return self._text.prefix_id

    @property
    def tokenizer_name(self) -> str:
        """What the harness's cache of requests tells tokenizers and ways of asking apart by."""
        return f"{self._name.replace('/', '__')}-{type(self._model.prompts).__name__}"

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template of --apply_chat_template as text, for the results."""
        return template_text(self._model.prompts, chat_template)

    def apply_chat_template(self, chat_history: Messages, add_generation_prompt: bool = True) -> str:
        """Messages in the model's chat template, or in Dolly's prompt where it has none or was tuned for that."""
        if self._asks_in_plain_keys:
            warnings.warn(NOT_TUNED, stacklevel=2)
        return render(self._model.prompts, chat_history, add_generation_prompt)

    def get_model_info(self) -> dict[str, object]:
        """What the harness writes into its results."""
        config, dtype = self._model.decoder.config, self._model.dtype
        info = {"model_num_parameters": config.parameter_count, "model_dtype": str(dtype)}
        return info | {"model_revision": self._revision, "max_length": self.max_length}

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """The log-likelihood of each continuation, and whether it is the model's own first choice throughout."""
        whole = self._text.encoder.rows([request.args for request in requests])
        rows = [fitting(row, self.max_length, f"request {number}") for number, row in enumerate(whole, 1)]
        answers: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
        for place, score in self._scored(rows, _groups(requests), disable_tqdm):
            answers[place] = (score.log_likelihood, score.greedy)
            self.cache_hook.add_partial("loglikelihood", requests[place].args, answers[place])
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of whole texts, in windows of the model's length as the harness cuts them."""
        texts = self._text.encoder.encode([request.args[0] for request in requests])
        windows = [(place, window) for place, ids in enumerate(texts) for window in self._windows(ids)]
        sums = [0.0] * len(texts)
        groups = [[number] for number in range(len(windows))]
        for number, score in self._scored([window for _, window in windows], groups, disable_tqdm):
            sums[windows[number][0]] += score.log_likelihood
        for request, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return sums

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """The answer to each context, up to the first of its stop strings."""
        contexts = self._text.encoder.encode([request.args[0] for request in requests])
        settings = [self._settings(request, number) for number, request in enumerate(requests)]
        asked = [self._request(ids, how) for ids, how in zip(contexts, settings, strict=True)]
        untils = [how.until for how in settings]
        texts = [""] * len(asked)
        with tqdm(total=len(asked), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for place, ids in generate(self._engine, self._model.tokenizer, asked, untils):
                texts[place] = cut(self._text.decode(ids), untils[place])
                self.cache_hook.add_partial("generate_until", requests[place].args, texts[place])
                bar.update()
        return texts

    @property
    def _asks_in_plain_keys(self) -> bool:
        prompts = self._model.prompts
        return isinstance(prompts, DollyPrompts) and prompts.textual_end

    def _scored(
        self, rows: Sequence[ScoreRow], groups: Sequence[Sequence[int]], disable_tqdm: bool
    ) -> Iterator[tuple[int, RowScore]]:
        """Each row's place and its score, as passes end; `groups` are the places of rows that share a beginning."""
        grouped = [[rows[place] for place in places] for places in groups]
        with tqdm(total=len(rows), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:
            for number, scores in score_groups(self._model.decoder, grouped, self._tokens_per_pass):
                yield from zip(groups[number], scores, strict=True)
                bar.update(len(scores))

    def _windows(self, ids: list[int]) -> Iterator[ScoreRow]:
        found = get_rolling_token_windows(ids, self.prefix_token_id, max_seq_len=self.max_length, context_len=1)
        for context, continuation in map(make_disjoint_window, found):
            yield ScoreRow([*context, *continuation], len(context))

    def _settings(self, request: Instance, number: int) -> GenerationSettings:
        context, given = request.args
        eos = self._model.tokenizer.decode([self.eot_token_id])
        # The harness seeds torch (--seed), and by that seed draws repeat; each request has a random stream of its own.
        draw = torch.initial_seed(), number
        how = GenerationSettings.read(given, default_tokens=self.max_gen_toks, eos=eos, draw=draw)
        if self._asks_in_plain_keys and dolly.RESPONSE_KEY in context:
            how = how.with_stop(dolly.END_KEY)  # to this model the end key is text
        if how.max_new_tokens >= self.max_length:
            raise InputError(
                f"{how.max_new_tokens} new tokens are asked for (max_gen_toks), and the model has {self.max_length} "
                "positions for them and the context together: ask for fewer (--gen_kwargs max_gen_toks=N)."
            )
        return how

    def _request(self, ids: list[int], how: GenerationSettings) -> Request:
        kept = ids[-(self.max_length - how.max_new_tokens) :] or [self.prefix_token_id]
        return Request(kept, how.max_new_tokens, how.sampling, self._model.prompts.stop_ids)


def _load(
    name: str, revision: str | None, dtype: str, device: str | None, prompt: str, rope_scaling: str | None
) -> Roslin:
    with warnings.catch_warnings():
        # Most tasks ask a model in no prompt at all: whether it was tuned for one matters to --apply_chat_template.
        warnings.filterwarnings("ignore", message=re.escape(NOT_TUNED[:40]))
        return Roslin.load(
            name,
            dtype=dtype,
            device=_device(device),
            prompt=prompt,
            revision=revision,
            rope_scaling=rope_scaling,
        )


def _device(name: str | None) -> str:
    """The harness passes cuda:0 when nobody names a device; without a GPU that is the CPU, as it is for HFLM."""
    if name is None:
        return "auto"
    if name.startswith("cuda") and not torch.cuda.is_available():
        log.warning("device is %s, and there is no GPU here: the model runs on the CPU.", name)
        return "cpu"
    return name


def _positions(model: Roslin, wanted: int | None) -> int:
    positions = model.decoder.config.positions
    if wanted is None:
        return positions
    if _count("max_length", wanted) > positions:
        raise InputError(f"max_length is {wanted}; the model has {positions} positions (rope_scaling stretches them).")
    return int(wanted)


def _rows(batch_size: int | str, max_batch_size: int | None) -> int:
    """The number in a batch size, 1 for auto."""
    if str(batch_size).startswith("auto"):
        return 1
    rows = _count("batch_size", batch_size, "auto or ")
    return rows if max_batch_size is None else min(rows, _count("max_batch_size", max_batch_size))


def _count(name: str, value: object, or_else: str = "") -> int:
    """The number in an argument, which the harness passes on as it was typed. Raises UsageError."""
    text = str(value)
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise UsageError(f"{name} is {value!r}; it must be {or_else}a number from 1 on.")
    return int(text)


def _groups(requests: Sequence[Instance]) -> list[list[int]]:
    """Places of consecutive requests about one document, whose contexts begin alike; empty contexts apart."""

    def shared(place: int) -> tuple[object, ...]:
        request = requests[place]
        context = request.args[0]
        if request.doc_id is None:
            return None, context
        return request.task_name, request.doc_id, context == ""

    return [list(places) for _, places in groupby(range(len(requests)), key=shared)]
