"""Export to CTranslate2's folder, by its own converter."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from roslin.errors import InputError, MachineError
from roslin.publish.export_hf import HfExport
from roslin.publish.parity import ParityError, Readback, Tolerance
from roslin.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from roslin.model import Decoder, ModelConfig
    from roslin.publish.export_source import Source

NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
TOLERANCES = {
    torch.float32: Tolerance(mean=1e-4, largest=1e-2, agreement=0.99, weight=0.0),
    torch.float16: Tolerance(mean=0.01, largest=0.2, agreement=0.95, weight=0.0),
    torch.bfloat16: Tolerance(mean=0.05, largest=1.0, agreement=0.85, weight=0.0),
}
"""CTranslate2 has kernels of its own, which add in another order. Its file of weights is not read back one by one."""
PLAIN = "as-safetensors"
"""The folder within the export, for as long as it takes, that the converter reads."""
INSTALL = "python -m pip install ctranslate2==4.8.5"


@dataclass(frozen=True)
class CTranslate2Export:
    """What `ctranslate2.Generator` loads; `dtype` None keeps the weights' own.

    Rows beyond the tokenizer are always left out: CTranslate2 would draw them.
    """

    dtype: torch.dtype | None = None
    trims: bool = True

    def check(self, source: Source) -> None:
        """Raise InputError for a model that the format cannot hold, MachineError where CTranslate2 is missing."""
        config = source.config
        whys = {
            "its GPT-NeoX has the rotary base 10000 alone": config.family == "gpt_neox"
            and config.rotary_base != 10000.0,
            "its GPT-NeoX always has biases in attention, and this model none": config.family == "gpt_neox"
            and not config.qkv_bias,
            "its GPT-NeoX and GPT-J have no scaled positions": config.norm == "layer"
            and config.rotary_scaling is not None,
            "it has no dynamic scaling of positions": config.rotary_scaling is not None
            and config.rotary_scaling.kind == "dynamic",
        }
        if found := [why for why, holds in whys.items() if holds]:
            raise InputError(
                f"{source.path} cannot be exported to CTranslate2: {'; '.join(found)}. Use --format hf or gguf."
            )
        _ctranslate2()

    def positions(self, config: ModelConfig) -> int:
        """How long a text may be for the export to be the same model."""
        return config.positions

    def tolerance(self, source: Source, decoder: Decoder) -> Tolerance:
        """How far the export may be from its source."""
        return TOLERANCES[self.dtype or decoder.dtype]

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        """Write the folder. Raises InputError with the converter's reason where it has one."""
        _ctranslate2()
        dtype = self.dtype or decoder.dtype
        plain = folder / PLAIN
        plain.mkdir()
        HfExport(dtype).write(source, decoder, plain)
        try:
            _converter(plain).convert(str(folder), quantization=NAMES[dtype], force=True)
        except (ValueError, NotImplementedError, AttributeError, KeyError) as error:
            raise InputError(f"{source.path}: CTranslate2's converter does not take it: {error!r}.") from error
        finally:
            shutil.rmtree(plain, ignore_errors=True)
        source.tokenizer.save(folder)

    def read(self, source: Source, written: Decoder, folder: Path, texts: Sequence[Sequence[int]]) -> Readback:
        """What CTranslate2 itself makes of the folder, computing in fp32 on the CPU."""
        tokens = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
        tokenizer = Tokenizer.load(folder)
        by_id = {id: token for token, id in tokenizer.marked_backend().get_vocab().items()}
        if wrong := [id for id, token in enumerate(tokens) if token != by_id.get(id, token)]:
            raise ParityError(f"CTranslate2's vocabulary has other tokens than the model's, the first at {wrong[0]}.")
        generator = _ctranslate2().Generator(str(folder), device="cpu", compute_type="float32")
        logits = [_logits(generator.forward_batch([list(ids)])) for ids in texts]
        return Readback(torch.cat(logits), tokenizer, None)


def _logits(found: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(found))[0].float()


def _ctranslate2() -> Any:
    try:
        import ctranslate2
    except ImportError:
        raise MachineError(f"This export needs the package ctranslate2, which is not installed: {INSTALL}") from None
    return ctranslate2


def _converter(folder: Path) -> Any:
    """CTranslate2's converter, with what its loader of GPT-NeoX asks for and transformers 5 calls otherwise.

    There the head is `lm_head`, was `embed_out`; the share of a head that turns is in `rope_parameters`.
    """
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):  # type: ignore[misc, unused-ignore]
        def load_model(self, *words: Any, **named: Any) -> Any:
            model = super().load_model(*words, **named)
            if model.config.model_type == "gpt_neox":
                rope = getattr(model.config, "rope_parameters", None) or {}
                if not hasattr(model.config, "rotary_pct"):
                    model.config.rotary_pct = rope["partial_rotary_factor"]
                if not hasattr(model, "embed_out"):
                    model.embed_out = model.lm_head
            return model

    return Converter(str(folder))
