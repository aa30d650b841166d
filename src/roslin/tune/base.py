"""The base that a run starts from: its weights with a row for every token, in the precision that passes have."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from roslin.errors import InputError
from roslin.model import Decoder, ModelConfig, fit_vocabulary, load_decoder
from roslin.model.grad_mode import no_grad
from roslin.tune.adamw.split import HALVES, split


@dataclass(frozen=True)
class Vocabulary:
    """What a run's tokenizer asks of a base's embedding and head."""

    tokens: int
    new_ids: Sequence[int]
    """Of the keys that the base did not have."""
    init: Literal["mean", "keep"]
    """`mean`: their rows begin as the mean of the used ones; `keep`: as they are."""


@dataclass(frozen=True)
class Base:
    """A loaded base, or this process's part of it."""

    decoder: Decoder
    low: dict[str, Tensor] | None
    """The low halves of weights that the decoder holds only rounded to bf16 or fp16."""
    stored_dtype: torch.dtype
    digest: bytes
    """Of the weights as they are stored."""


def load_base(
    folder: Path,
    config: ModelConfig,
    vocabulary: Vocabulary,
    *,
    device: torch.device,
    precision: torch.dtype | None,
) -> Base:
    """All of a base on one device. `precision` None leaves its weights as they are stored.

    Raises what `load_decoder` does, and InputError for weights beyond fp16 where that is the precision.
    """
    decoder = load_decoder(folder, device=device, config=config)
    stored_dtype, digest = decoder.dtype, base_digest(decoder)
    fit_vocabulary(decoder, vocabulary.tokens, vocabulary.new_ids, vocabulary.init)
    low = None if precision is None else _to_precision(decoder, precision)
    return Base(decoder, low, stored_dtype, digest)


@no_grad
def base_digest(decoder: Decoder) -> bytes:
    """A checksum of a model's configuration and of its weights' bits.

    Matrices go in by the sums over their rows and over their columns, which a pass at memory speed gives: that tells a
    base from another, or from itself retrained, and does not resist somebody who forges one. Vectors go in whole.
    """
    parameters = decoder.named_parameters()
    return digest_of_sums(decoder.config, ((name, p.shape, p.dtype, sums_of_bits(p)) for name, p in parameters))


def digest_of_sums(
    config: ModelConfig, parameters: Iterable[tuple[str, Sequence[int], torch.dtype, Sequence[Tensor]]]
) -> bytes:
    """The checksum of a configuration and of each parameter's name, shape, dtype and sums."""
    digest = hashlib.sha256(repr(config).encode())
    for name, shape, dtype, sums in parameters:
        digest.update(f"{name} {tuple(shape)} {dtype}".encode())
        for part in sums:
            digest.update(part.cpu().numpy().tobytes())
    return digest.digest()


def sums_of_bits(weight: Tensor) -> list[Tensor]:
    """A matrix's bits summed over its rows, [columns], and over its columns, [rows]; of a vector, the bits."""
    bits = weight.detach().view(torch.int32 if weight.itemsize == 4 else torch.int16)
    return [bits] if bits.dim() == 1 else [bits.sum(dim, dtype=torch.int64) for dim in range(bits.dim())]


def to_precision(name: str, weight: Tensor, precision: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """A weight as passes have it, and the low half of what it was if that was rounded to 16 bits.

    Raises InputError, with the parameter's name, for one that is beyond fp16.
    """
    if not is_rounded(weight.dtype, precision):
        return weight.to(precision), None
    if precision == torch.float16:
        refuse_beyond_fp16(name, weight)
    return split(weight.float(), precision)


def refuse_beyond_fp16(name: str, weight: Tensor) -> None:
    """Raise InputError, with the parameter's name, for weights that would be infinite in fp16."""
    if bool((weight.half().isinf() & weight.isfinite()).any()):
        raise InputError(
            f"{name} has weights of up to {float(weight.abs().max()):,.0f}, and fp16 ends at 65,504: "
            "set precision=bf16 or precision=fp32."
        )


def is_rounded(stored: torch.dtype, precision: torch.dtype) -> bool:
    """Whether passes in `precision` have less of a weight than is stored of it."""
    return precision in HALVES and precision != stored


def _to_precision(decoder: Decoder, precision: torch.dtype) -> dict[str, Tensor] | None:
    """Convert the decoder in place, one parameter at a time: never is more than one in fp32 beside the model."""
    low = {}
    for name, parameter in decoder.named_parameters():
        parameter.data, half = to_precision(name, parameter.detach(), precision)
        if half is not None:
            low[name] = half
    return low or None
