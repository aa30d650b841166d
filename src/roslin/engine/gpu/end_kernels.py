"""Triton kernels by which sequences go on, and end, from pass to pass without a word from the host."""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def begin(
    ids, positions, seen, known, slots, asked, latest, ends, rows,
    columns: tl.constexpr, is_known: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Tokens of a pass: their `ids`, and the `positions` that their keys are turned by and `seen` at.

    Where an id is not `known` (-1, or not `is_known`) it is its slot's latest one. Such a token, if it stands behind
    the last position of its sequence, is nobody's: it is `seen` at -1.
    """
    row_B = tl.program_id(0) * block + tl.arange(0, block)
    inside_B = row_B < rows
    slot_B = tl.load(slots + row_B, mask=inside_B, other=0)
    position_B = tl.load(asked + row_B, mask=inside_B, other=-1)
    id_B = tl.load(latest + slot_B, mask=inside_B, other=0)
    over_B = position_B > tl.load(ends + slot_B * columns, mask=inside_B, other=0)
    if is_known:
        known_B = tl.load(known + row_B, mask=inside_B, other=0)
        over_B &= known_B < 0
        id_B = tl.where(known_B < 0, id_B, known_B)
    tl.store(ids + row_B, id_B, mask=inside_B)
    tl.store(positions + row_B, tl.maximum(position_B, 0), mask=inside_B)
    tl.store(seen + row_B, tl.where(over_B, -1, position_B), mask=inside_B)


@triton.jit(do_not_specialize=["rows"])
def keep(latest, ends, ids, seen, slots, rows, columns: tl.constexpr, block: tl.constexpr):
    """Put what was drawn into its slot; whoever has drawn a stop id has computed its last position.

    What is nobody's (`seen` below 0) changes nothing. No slot may come twice.
    """
    row_B = tl.program_id(0) * block + tl.arange(0, block)
    inside_B = row_B < rows
    position_B = tl.load(seen + row_B, mask=inside_B, other=-1)
    going_B = position_B >= 0
    slot_B = tl.load(slots + row_B, mask=inside_B, other=0)
    id_B = tl.load(ids + row_B, mask=inside_B, other=0)
    stops_B = position_B < 0
    for column in tl.static_range(1, columns):
        stops_B |= tl.load(ends + slot_B * columns + column, mask=going_B, other=-1) == id_B
    tl.store(latest + slot_B, id_B, mask=going_B)
    tl.store(ends + slot_B * columns, position_B, mask=going_B & stops_B)
