"""Export to one GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from roslin.model import load_decoder
from roslin.publish import gguf_weights
from roslin.publish.gguf_tokenizer import add_tokenizer
from roslin.publish.parity import Readback, Tolerance, decoder_logits, weight_error
from roslin.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gguf import GGMLQuantizationType, GGUFWriter

    from roslin.model import Decoder, ModelConfig
    from roslin.publish.export_source import Source
    from roslin.publish.gguf_weights import NamedTensor

Quantize = Literal["f16", "q8_0", "q4_0"]
BLOCK = 32
"""Numbers that q8_0 and q4_0 pack together."""
ROWS_AT_ONCE = 4096

TOLERANCES: dict[Quantize, Tolerance] = {
    "f16": Tolerance(mean=0.01, largest=0.2, agreement=0.95, weight=2**-11),
    "q8_0": Tolerance(mean=0.05, largest=1.0, agreement=0.85, weight=0.006),
    "q4_0": Tolerance(mean=0.5, largest=4.0, agreement=0.6, weight=0.13),
}
"""float16 keeps 11 bits. q8_0 rounds to 1/127 of the largest of 32 numbers, so errors are half of that; q4_0 to 1/8 of
it, and a whole step off at the end that its 16 steps leave out. Scales in fp16 add a little to both. What that makes
of logits was tried: it is most on small models, which docs/export.md lists."""


@dataclass(frozen=True)
class GgufExport:
    """One file. Matrices are packed as `quantize` says; in q4_0 the embedding and the head are q8_0.

    A token's row is all that the model knows of it, and those of Dolly's keys say where an answer begins and ends.
    Rows beyond the tokenizer are always left out: llama.cpp would draw them.
    """

    quantize: Quantize = "f16"
    trims: bool = True

    @property
    def file(self) -> str:
        """The name of the file in the export's folder."""
        return f"model-{self.quantize}.gguf"

    def check(self, source: Source) -> None:
        """Raise InputError for a model that the format cannot hold."""
        gguf_weights.check(source.config, str(source.path))

    def positions(self, config: ModelConfig) -> int:
        """How long a text may be for the export to be the same model: llama.cpp's llama and qwen have no window."""
        return gguf_weights.positions(config)

    def tolerance(self, source: Source, decoder: Decoder) -> Tolerance:
        """How far the export may be from its source."""
        return TOLERANCES[self.quantize]

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        """Write the file."""
        import gguf

        writer = gguf.GGUFWriter(folder / self.file, gguf_weights.ARCHITECTURES[decoder.config.family])
        try:
            self._add_keys(writer, source, decoder)
            tensors = list(gguf_weights.named_tensors(decoder))
            for tensor in tensors:
                self._announce(writer, tensor)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for tensor in tensors:
                writer.write_tensor_data(_packed(tensor, self._packing(tensor)))
        finally:
            writer.close()

    def read(self, source: Source, written: Decoder, folder: Path, texts: Sequence[Sequence[int]]) -> Readback:
        """What Roslin's own loader makes of the file."""
        file = folder / self.file
        decoder = load_decoder(file, dtype=torch.float32)
        error = weight_error(written, decoder, source.tokens)
        return Readback(decoder_logits(decoder, texts), Tokenizer.load(file), error)

    def _add_keys(self, writer: GGUFWriter, source: Source, decoder: Decoder) -> None:
        import gguf

        kinds = {
            "f16": gguf.LlamaFileType.MOSTLY_F16,
            "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
            "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
        }
        writer.add_name(source.path.resolve().stem)
        writer.add_file_type(kinds[self.quantize])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        gguf_weights.add_config(writer, decoder.config)
        add_tokenizer(writer, source)

    def _announce(self, writer: GGUFWriter, tensor: NamedTensor) -> None:
        import gguf

        packing = self._packing(tensor)
        block, size = gguf.GGML_QUANT_SIZES[packing]
        count = int(np.prod(tensor.shape)) // block * size
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), count, raw_dtype=packing)

    def _packing(self, tensor: NamedTensor) -> GGMLQuantizationType:
        """Vectors stay float32, as llama.cpp wants them; rows that blocks do not fill stay float16."""
        from gguf import GGMLQuantizationType as Packing

        if len(tensor.shape) < 2:
            return Packing.F32
        if self.quantize == "f16" or tensor.shape[-1] % BLOCK:
            return Packing.F16
        outer = tensor.name in ("token_embd.weight", "output.weight")
        return Packing.Q8_0 if self.quantize == "q8_0" or outer else Packing.Q4_0


def _packed(tensor: NamedTensor, packing: GGMLQuantizationType) -> np.ndarray[Any, Any]:
    """The tensor's bytes, packed some rows at a time."""
    from gguf import quantize

    rows = torch.split(tensor.read(), ROWS_AT_ONCE)
    return np.concatenate([quantize(part.float().cpu().numpy(), packing).view(np.uint8) for part in rows])
