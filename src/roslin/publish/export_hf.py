"""Export to transformers' folder: sharded safetensors, generation config and tokenizer."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import torch

from roslin.errors import InputError
from roslin.integrations.pipeline_files import add_pipelines
from roslin.model import load_decoder, save_decoder
from roslin.model.files import json_object
from roslin.publish.evidence import Evidence, read_evidence, write_evidence
from roslin.publish.parity import Readback, Tolerance, decoder_logits, weight_error
from roslin.publish.sections import CARD
from roslin.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from roslin.model import Decoder, ModelConfig
    from roslin.publish.export_source import Source

SHARD_BYTES = 5_000_000_000
"""As large as transformers' own shards."""

EXACT = Tolerance(mean=1e-5, largest=1e-3, agreement=1.0, weight=0.0)
"""No number is rounded."""
ROUNDED = {
    torch.float32: Tolerance(mean=1e-5, largest=1e-3, agreement=0.99, weight=2**-23),
    torch.float16: Tolerance(mean=0.01, largest=0.2, agreement=0.95, weight=2**-11),
    torch.bfloat16: Tolerance(mean=0.05, largest=1.0, agreement=0.85, weight=2**-8),
}
"""Numbers keep 11 bits in float16 and 8 in bfloat16, so they are off by half of the last; logits add up the errors of
thousands of them, and where two tokens are nearly as probable, the first may change. An adapter is merged in fp32
before it is rounded, whose sums come out in another order."""


@dataclass(frozen=True)
class HfExport:
    """The folder that `AutoModelForCausalLM.from_pretrained` loads; `dtype` None keeps the weights' own.

    A model with Dolly's keys gets the instruction pipeline's file as well, which asks with Dolly's prompt.
    With `merged`, the source must be an adapter, and what is written is its base with the adapter in its weights.
    """

    dtype: torch.dtype | None = None
    merged: bool = False
    shard_bytes: int = SHARD_BYTES
    trims: bool = False

    def check(self, source: Source) -> None:
        """Raise InputError for a model that the format cannot hold, and for one whose roslin.json has faults."""
        if self.merged and not source.is_adapter:
            raise InputError(
                f"{source.path} is a whole model, not an adapter, so there is nothing to merge: use --format hf."
            )
        _evidence(source)  # one with faults is told before the work

    def positions(self, config: ModelConfig) -> int:
        """How long a text may be for the export to be the same model."""
        return config.positions

    def tolerance(self, source: Source, decoder: Decoder) -> Tolerance:
        """How far the export may be from its source."""
        dtype = self.dtype or decoder.dtype
        widens = torch.promote_types(decoder.dtype, dtype) == dtype
        return EXACT if widens and not source.is_adapter else ROUNDED[dtype]

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        """Write the folder."""
        end = source.tokenizer.end_id
        save_decoder(decoder, folder, dtype=self.dtype, max_shard_bytes=self.shard_bytes, end_id=end)
        source.tokenizer.save(folder)
        _write_generation(source, folder)
        for name in ("chat_template.jinja", *(() if source.is_adapter else (CARD,))):
            if found := source.beside(name):
                shutil.copyfile(found, folder / name)
        _write_evidence(source, folder)
        if source.tokenizer.has_keys:
            add_pipelines(folder)

    def read(self, source: Source, written: Decoder, folder: Path, texts: Sequence[Sequence[int]]) -> Readback:
        """What Roslin's own loader makes of the folder."""
        decoder = load_decoder(folder, dtype=torch.float32)
        error = weight_error(written, decoder, source.tokens)
        return Readback(decoder_logits(decoder, texts), Tokenizer.load(folder), error)


def _evidence(source: Source) -> Evidence:
    """What is known of the model; of an adapter, not of its base."""
    return read_evidence(source.path if source.path.is_dir() else source.path.parent)


def _write_evidence(source: Source, folder: Path) -> None:
    """Keep what is known of the model. Whether measurements hold for what was written, its fingerprint tells."""
    found = _evidence(source)
    if found.tuning and found.tuning.adapter:
        found = found.model_copy(update={"tuning": found.tuning.model_copy(update={"adapter": None})})
    if found != Evidence():
        write_evidence(folder, found)


def _write_generation(source: Source, folder: Path) -> None:
    """Keep what the model's own generation_config.json says, and see that an answer ends at every token that ends it.

    A model with Dolly's keys ends at the end key even if its file does not say so: Dolly's code passed it at each call.
    """
    path = folder / "generation_config.json"
    written, theirs = json_object(path), source.beside("generation_config.json")
    given: dict[str, Any] = json_object(theirs) if theirs else {}
    ends = given.get("eos_token_id", written["eos_token_id"])
    listed = [*(ends if isinstance(ends, list) else [ends]), *sorted(source.tokenizer.turn_ends)]
    if source.tokenizer.has_keys:
        listed.insert(0, source.tokenizer.end_id)
    found = list(dict.fromkeys(id for id in listed if id is not None))
    values = written | given | {"eos_token_id": found[0] if len(found) == 1 else found}
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
