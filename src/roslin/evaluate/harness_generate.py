"""The LM Evaluation Harness's generate_until on Roslin's engine."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from roslin.engine import GREEDY, Engine, Request, Sampling
from roslin.errors import InputError
from roslin.tokens import TextStream, Tokenizer

HF_TOP_K = 50
"""What transformers draws from when a temperature is given and nothing else (GenerationConfig's default)."""
HELD = frozenset({"do_sample", "temperature", "top_p", "top_k", "until", "max_gen_toks"})
WITHOUT_EFFECT = {"num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "use_cache": True}
"""Settings of transformers' generate that mean nothing at these values; at others they would change the answers."""


@dataclass(frozen=True)
class GenerationSettings:
    """How one request of generate_until is answered."""

    until: tuple[str, ...]
    max_new_tokens: int
    sampling: Sampling

    @classmethod
    def read(
        cls, given: Mapping[str, Any], *, default_tokens: int, eos: str, draw: tuple[int, int]
    ) -> "GenerationSettings":
        """The request's own settings, understood as HFLM understands them; `draw` is seed and number of the request.

        Greedy unless a temperature or do_sample is given. Raises InputError for a setting that the engine has not.
        """
        kwargs = dict(normalize_gen_kwargs(dict(given), default_tokens))
        unknown = {k: v for k, v in kwargs.items() if k not in HELD and WITHOUT_EFFECT.get(k) != v}
        if unknown:
            raise InputError(
                f"Generation settings that Roslin's engine does not have: {unknown}. Known: {sorted(HELD)}."
            )
        until = tuple(stop for stop in handle_stop_sequences(list(kwargs["until"]), eos=eos) if stop)
        return cls(until, kwargs["max_gen_toks"], _sampling(kwargs, *draw))

    def with_stop(self, stop: str) -> "GenerationSettings":
        """The same with one more stop string."""
        return replace(self, until=(*self.until, stop))


def _sampling(kwargs: Mapping[str, Any], seed: int, stream: int) -> Sampling:
    if not kwargs.get("do_sample"):
        return GREEDY
    temperature = float(kwargs.get("temperature", 0.0))
    if temperature == 0:
        raise InputError(
            "do_sample=True needs a temperature above 0; without do_sample the most likely token is taken."
        )
    top_p, top_k = float(kwargs.get("top_p", 1.0)), int(kwargs.get("top_k", HF_TOP_K))
    return Sampling(temperature, top_p, top_k, seed, stream)


@dataclass(eq=False)
class Draft:
    """An answer while its tokens come."""

    stream: TextStream
    until: tuple[str, ...]
    ids: list[int] = field(default_factory=list)
    _tail: str = ""

    def take(self, token_id: int) -> bool:
        """Add a token; whether a stop string is now complete in the text, special tokens written out."""
        self.ids.append(token_id)
        self._tail += self.stream.push(token_id)
        if any(stop in self._tail for stop in self.until):
            return True
        longest = max(map(len, self.until), default=1)
        self._tail = self._tail[-(longest - 1) :] if longest > 1 else ""
        return False


def generate(
    engine: Engine, tokenizer: Tokenizer, requests: Sequence[Request], untils: Sequence[tuple[str, ...]]
) -> Iterator[tuple[int, list[int]]]:
    """Each request's number and the ids of its answer, as they end; the ids that completed a stop string included."""
    drafts = [Draft(TextStream(tokenizer), until) for until in untils]
    places = {number: place for place, number in enumerate(engine.submit_all(requests))}
    try:
        while places:
            for event in engine.step():
                draft = drafts[places[event.number]]
                stopped = event.token is not None and draft.take(event.token.id)
                if stopped:
                    engine.cancel(event.number)
                if stopped or event.completion:
                    yield (place := places.pop(event.number)), drafts[place].ids
    finally:
        for number in places:
            engine.cancel(number)


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first of the stop strings, as the harness cuts it."""
    return str(postprocess_generated_text(text, list(until), None))
