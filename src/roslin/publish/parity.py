"""Whether an exported model is still the model: its logits beside the source's, both computed in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from roslin.errors import InputError, RoslinError
from roslin.model import PackedAttention, packed_positions
from roslin.model.grad_mode import no_grad

if TYPE_CHECKING:
    from collections.abc import Sequence

    from roslin.model import Decoder
    from roslin.tokens import Tokenizer

TEXTS = (
    ("Explain to me the difference between nuclear fission and fusion.", "", "Fission splits a heavy nucleus."),
    ("Give me a list of 5 science fiction books I should read next.", "", "1. Dune\n2. Neuromancer\n3. Solaris"),
    ("What is the capital named in the text?", "Paris is the capital of France, café by café.", "Paris, of 2,1 M."),
    ("Write a tweet announcing Dolly, a large language model from Databricks.", "", "Hello, Dolly! 🐑 #LLM"),
)
"""An instruction, its context, and the answer that follows; the first two and the last are Dolly's published probes."""


AWKWARD = (
    "  two spaces  12 and 3456,  78.90",
    "def f(x):\n    return x**2  # it's O(1)\n\n\n\tpass\r\n",
    "I'Ve 'told you: we'LL DON'T HTTPServer iPhone",
    "Ωμέγα ½ ² ٣٤ 漢字かな。한국어",
    "👩‍👩‍👧 🇫🇷 ✅ <|endoftext|> ### End",
    "10000 1,000,000.5e-7 --- ... !?",
)
"""Texts that tokenizers cut in different ways."""


class ParityError(RoslinError):
    """An exported model is not near enough to its source. Nothing of it is kept. Exit code 1."""


@dataclass(frozen=True)
class Tolerance:
    """How far an export may be from its source.

    `mean` and `largest` bound the errors of logits, counted in the standard deviation of the source's; `agreement` is
    the least share of positions at which the most probable token is the same; `weight` bounds how far a number may be
    from the source's, as a share of the largest in its row.
    """

    mean: float
    largest: float
    agreement: float
    weight: float


@dataclass(frozen=True)
class Parity:
    """What the comparison found. Errors are those of logits, as they are; `spread` is their standard deviation.

    `weight_error` is the largest error of a weight, as a share of the largest in its row; None where the weights of
    the exported format cannot be read back one by one.
    """

    positions: int
    mean_error: float
    largest_error: float
    spread: float
    agreement: float
    weight_error: float | None
    tolerance: Tolerance

    def faults(self) -> list[str]:
        """What is beyond the tolerance, in words. Numbers that are none are beyond any."""
        bounds = [
            ("the mean error of a logit", self.mean_error, self.tolerance.mean * self.spread),
            ("the largest error of a logit", self.largest_error, self.tolerance.largest * self.spread),
            ("the largest error of a weight, by its row's largest,", self.weight_error or 0.0, self.tolerance.weight),
        ]
        found = [f"{what} is {error:.3g}, above {bound:.3g}" for what, error, bound in bounds if not error <= bound]
        if not self.agreement >= self.tolerance.agreement:
            found.append(
                f"the most probable token is the same at {self.agreement:.1%} of {self.positions} positions, below "
                f"{self.tolerance.agreement:.0%}"
            )
        return found

    def __str__(self) -> str:
        """One line for people."""
        weight = "" if self.weight_error is None else f", weights within {self.weight_error:.2g} of their row's largest"
        return (
            f"logits of {self.positions} positions in fp32: mean error {self.mean_error:.3g}, largest "
            f"{self.largest_error:.3g} (they spread by {self.spread:.3g}); the same most probable token at "
            f"{self.agreement:.1%}{weight}"
        )


@dataclass(frozen=True)
class Readback:
    """What an export gave when it was read again: logits [N, V], its tokenizer, and `Parity.weight_error`."""

    logits_NV: Tensor
    tokenizer: Tokenizer
    weight_error: float | None


def check_tokenizer(source: Tokenizer, export: Tokenizer) -> None:
    """Raise ParityError unless both make the same ids of texts and prompts, and end an answer at the same ones."""
    for text in [*(part for parts in TEXTS for part in parts), *AWKWARD]:
        ids, theirs = source.encode(text), export.encode(text)
        if ids != theirs:
            raise ParityError(f"The export's tokenizer makes {theirs} of {text!r}; the source's makes {ids}.")
        if source.decode(ids) != export.decode(ids):
            raise ParityError(f"The export's tokenizer writes {export.decode(ids)!r} for {source.decode(ids)!r}.")
    for name in ("size", "has_keys", "start_ids", "end_id", "eos_id"):
        ours, its = getattr(source, name), getattr(export, name)
        if ours != its:
            raise ParityError(f"The export's tokenizer has {name} {its}; the source's has {ours}.")
    instruction, context, _ = TEXTS[2]
    if source.prompt_ids(instruction, context) != export.prompt_ids(instruction, context):
        raise ParityError("The export's tokenizer makes another prompt of Dolly's keys than the source's.")


def parity_ids(tokenizer: Tokenizer, positions: int) -> list[list[int]]:
    """The fixed prompts with their answers as ids, no longer than the model: every key of Dolly is read once each."""
    end = [tokenizer.end_id]
    texts = [
        [*tokenizer.prompt_ids(instruction, context), *tokenizer.encode(response), *end, *tokenizer.encode("\n")]
        for instruction, context, response in TEXTS
    ]
    return [ids[:positions] for ids in texts]


@no_grad
def decoder_logits(decoder: Decoder, texts: Sequence[Sequence[int]]) -> Tensor:
    """The logits [N, V] of every position of all texts, one text after the other, on the CPU in fp32."""
    lengths = [len(ids) for ids in texts]
    device = decoder.device
    ids_N = torch.tensor([id for ids in texts for id in ids], device=device)
    attend = PackedAttention(lengths, decoder.config.window)
    logits_NV: Tensor = decoder(ids_N, packed_positions(lengths, device), attend)
    return logits_NV.float().cpu()


def compare_logits(
    source_NV: Tensor, export_NV: Tensor, tolerance: Tolerance, weight_error: float | None = None
) -> Parity:
    """Compare the logits of tokens; rows beyond the tokenizer are the caller's to leave out.

    Raises ParityError where there are not as many of one as of the other.
    """
    if source_NV.shape != export_NV.shape:
        raise ParityError(f"The export gives logits of {list(export_NV.shape)}, its source of {list(source_NV.shape)}.")
    if not source_NV.isfinite().all():
        raise InputError("The model's own logits are not numbers: it is damaged, and cannot be exported.")
    errors_NV = (export_NV - source_NV).abs()
    return Parity(
        positions=len(source_NV),
        mean_error=float(errors_NV.mean()),
        largest_error=float(errors_NV.max()),
        spread=float(source_NV.std()),
        agreement=float((source_NV.argmax(1) == export_NV.argmax(1)).float().mean()),
        weight_error=weight_error,
        tolerance=tolerance,
    )


@no_grad
def weight_error(source: Decoder, export: Decoder, tokens: int) -> float:
    """The largest error of any weight of the source, as a share of the largest in its row.

    Of embedding and head only the rows of `tokens` count. A tied head is the embedding. Raises ParityError for a
    weight that the export has not, or in another shape.
    """
    theirs: dict[str, Tensor] = dict(export.named_parameters())
    theirs.setdefault("head.weight", export.embedding.weight)
    worst = 0.0
    for name, parameter in source.named_parameters():
        kept = slice(tokens) if name.startswith(("embedding.", "head.")) else slice(None)
        ours_RI, found = parameter[kept], theirs.get(name)
        if found is None or found[kept].shape != ours_RI.shape:
            raise ParityError(f"The export has no {name} of the shape {list(ours_RI.shape)}.")
        for ours, its in zip(torch.split(ours_RI, 4096), torch.split(found[kept], 4096), strict=True):
            worst = max(worst, _row_error(ours, its))
    return worst


def _row_error(ours: Tensor, theirs: Tensor) -> float:
    """The largest error by its row's largest number; a vector is one row. Infinite where a number is none."""
    ours_RI, theirs_RI = (tensor.float().view(-1, tensor.shape[-1]) for tensor in (ours, theirs))
    errors_RI = (ours_RI - theirs_RI).abs()
    if not errors_RI.isfinite().all():
        return float("inf")
    scale_R1 = ours_RI.abs().amax(1, keepdim=True)
    return float((errors_RI / scale_R1.clamp(min=torch.finfo(torch.float32).tiny)).max())
