"""What 8 and 4 bits cost on a tuned model: held-out response loss, divergence of the logits, and first choices.

    python bench/quantize.py MODEL RECORDS [--records 100]

MODEL is a tuned model (such as what `roslin tune` makes of the small base), RECORDS a file of records that it was not
tuned on; those beyond its positions are left out. Every way of packing is set against the model's own weights, in fp32,
on the response of every record: the loss, the mean Kullback-Leibler divergence from the model's own next-token
distribution, and how often the first choice is the same. "weights off by" is the relative error of the layers'
matrices.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from roslin.answer.prompts import choose_prompts
from roslin.model import Decoder, PackedAttention, find_model, load_decoder, packed_positions, text_source
from roslin.model.quantised import quantise_4, quantise_8, quantise_fp8, round_to_4
from roslin.records import load
from roslin.tokens import Tokenizer


def to_int8(weight: Tensor) -> Tensor:
    return quantise_8(weight).dequantize()


def to_fp8(weight: Tensor) -> Tensor:
    return quantise_fp8(weight).dequantize()


WAYS: dict[str, tuple[Callable[[Tensor], Tensor] | None, float]] = {
    "as it is": (None, 16),
    "int8": (to_int8, 8),
    "fp8": (to_fp8, 8),
    "int4 g64, rounded": (lambda weight: round_to_4(weight).dequantize(), 4.5),
    "int4 g64, roslin": (lambda weight: quantise_4(weight).dequantize(), 4.5),
    "int4 g32, roslin": (lambda weight: quantise_4(weight, 32).dequantize(), 5),
}
"""By name: what a matrix is when it is read again, and its bits a weight."""


@dataclass(frozen=True)
class Row:
    ids: list[int]
    start: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("records", type=Path)
    parser.add_argument("--records", dest="count", type=int, default=100)
    options = parser.parse_args()
    folder = find_model(options.model)
    rows = read_rows(folder, options.records, options.count)
    with torch.inference_mode():
        exact = load_decoder(folder, dtype=torch.float32)
        rows = [row for row in rows if len(row.ids) <= exact.config.positions]
        plain = [logprobs(exact, row) for row in rows]
        print(f"{options.model}, {len(rows)} records, {sum(len(x) for x in plain):,} response tokens\n")
        print("| weights | bits | weights off by | response loss | change | divergence | same first choice |")
        print("|---|---|---|---|---|---|---|")
        own = loss(plain, rows)
        for name, (quantise, bits) in WAYS.items():
            decoder = load_decoder(folder, dtype=torch.float32)
            off = pack(decoder, quantise) if quantise else 0.0
            found = [logprobs(decoder, row) for row in rows]
            print_row(name, bits, off, loss(found, rows), own, plain, found)


def read_rows(folder: Path, records: Path, count: int) -> list[Row]:
    source = text_source(folder)
    prompts, _ = choose_prompts("auto", Tokenizer.load(source), source)
    rows = []
    for record in load([records])[:count]:
        ids, start = prompts.scored_ids(record.instruction, record.context or None, record.response)
        rows.append(Row(list(ids), start))
    return rows


def pack(decoder: Decoder, quantise: Callable[[Tensor], Tensor]) -> float:
    """Quantise every matrix in place, embedding and head in fp8 as the layers, else in int8; the layers' error."""
    error = size = 0.0
    for block in decoder.blocks:
        for part in ("qkv", "out", "up", "down"):
            weight = getattr(block, part).weight
            packed = quantise(weight)
            error += float((packed - weight).square().sum())
            size += float(weight.square().sum())
            getattr(block, part).weight.data = packed
    for outer in (decoder.embedding, decoder.head):
        outer.weight.data = (to_fp8 if quantise is to_fp8 else to_int8)(outer.weight)
    return math.sqrt(error / size)


def logprobs(decoder: Decoder, row: Row) -> Tensor:
    """Next-token log-probabilities for the response's tokens, [R, V]."""
    hidden_ND = decoder.hidden(torch.tensor(row.ids), packed_positions([len(row.ids)]), PackedAttention([len(row.ids)]))
    return decoder.logits(hidden_ND[row.start - 1 : -1]).log_softmax(-1)


def loss(found: Sequence[Tensor], rows: Sequence[Row]) -> float:
    targets = [torch.tensor(row.ids[row.start :])[:, None] for row in rows]
    picked = torch.cat([x.gather(1, target) for x, target in zip(found, targets, strict=True)])
    return -float(picked.mean())


def print_row(
    name: str, bits: float, off: float, loss: float, own: float, plain: Sequence[Tensor], found: Sequence[Tensor]
) -> None:
    pairs = list(zip(plain, found, strict=True))
    divergence = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in pairs]).mean()
    same = torch.cat([p.argmax(-1) == q.argmax(-1) for p, q in pairs]).float().mean()
    print(
        f"| {name} | {bits} | {off:.2%} | {loss:.4f} | {loss - own:+.4f} | {divergence:.5f} | {same:.1%} |", flush=True
    )


if __name__ == "__main__":
    main()
