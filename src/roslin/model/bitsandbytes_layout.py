"""bitsandbytes' layout of nf4 matrices in safetensors, as transformers saves and loads it.

Beside `X.weight`, which holds the codes, lie its pieces: `X.weight.absmax`, `X.weight.quant_map` and, as the bytes of
a JSON object, `X.weight.quant_state.bitsandbytes__nf4`. With double quantisation the magnitudes are 8-bit codes
themselves; `nested_absmax`, `nested_quant_map` and an offset in the JSON turn them back. Roslin reads both kinds and
writes the first.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import torch
from torch import Tensor

from roslin.errors import InputError
from roslin.model.nf4 import BLOCKS, LEVELS, Nf4Weight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

STATE = "quant_state.bitsandbytes__nf4"
FP4_STATE = "quant_state.bitsandbytes__fp4"
PIECES = ("absmax", "quant_map", STATE)
NESTED_PIECES = ("nested_absmax", "nested_quant_map")
PIECE_NAME = re.compile(rf"(.+)\.({'|'.join(map(re.escape, (*PIECES, FP4_STATE, *NESTED_PIECES)))})")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NESTED_LEVELS = 256
MAP_TOLERANCE = 1e-6
"""How far apart the numbers of two maps may be that bitsandbytes calls the same."""


def nf4_groups(names: Iterable[str]) -> dict[str, list[str]]:
    """The 4-bit matrices among a file's tensors: by a matrix's name, its own tensors' names, as many as are there."""
    there = set(names)
    groups: dict[str, list[str]] = {}
    for name in sorted(there):
        if found := PIECE_NAME.fullmatch(name):
            matrix = found[1]
            groups.setdefault(matrix, [matrix] if matrix in there else []).append(name)
    return groups


def to_bitsandbytes(name: str, weight: Nf4Weight) -> dict[str, Tensor]:
    """The tensors to save for the matrix `name` (`X.weight`), by name; codes and magnitudes are not copied."""
    state = {
        "quant_type": "nf4",
        "blocksize": weight.block,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "shape": weight.shape,
    }
    return {
        name: weight.codes.view(-1, 1),
        f"{name}.absmax": weight.absmax,
        f"{name}.quant_map": torch.tensor(LEVELS),
        f"{name}.{STATE}": torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8),
    }


def from_bitsandbytes(name: str, tensors: Mapping[str, Tensor]) -> Nf4Weight:
    """The matrix `name` (`X.weight`) from its group of tensors, sharing their memory where it can.

    Raises InputError naming each tensor that is missing, of the wrong size or kind, or not nf4.
    """
    pieces = {full[len(name) + 1 :]: tensor.flatten() for full, tensor in tensors.items()}
    _raise_faults(_absences(name, pieces))
    # bnb_4bit_quant_storage may have put the same bytes under a wider dtype.
    codes = pieces.pop("").view(torch.uint8)
    state = _read_state(f"{name}.{STATE}", pieces.pop(STATE), nested="nested_absmax" in pieces)
    _raise_faults([*_misfits(name, state, {"": codes, **pieces}), *_strange_map(name, pieces["quant_map"])])
    return Nf4Weight(codes, _absmax(state, pieces), state.shape, state.block, state.dtype)


def quantization_config(compute_dtype: torch.dtype) -> dict[str, Any]:
    """What `config.json` says under `quantization_config` where every linear module but the head is in this layout.

    `compute_dtype` is that of the products. No module is named as plain: transformers then spares the head, whose name
    for GPT-NeoX differs between its versions, and spares nothing else.
    """
    return {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "load_in_8bit": False,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": False,
        "bnb_4bit_compute_dtype": str(compute_dtype).removeprefix("torch."),
        "bnb_4bit_quant_storage": "uint8",
        "llm_int8_skip_modules": None,
    }


@dataclass(frozen=True)
class _State:
    """What the JSON says. `nested_block` is None without double quantisation."""

    shape: tuple[int, int]
    block: int
    dtype: torch.dtype
    nested_block: int | None
    nested_offset: float

    def sizes(self) -> dict[str, int]:
        """How many numbers each piece has, the codes ("") counted in bytes."""
        count = math.prod(self.shape)
        blocks = math.ceil(count / self.block)
        sizes = {"": math.ceil(count / 2), "absmax": blocks, "quant_map": len(LEVELS)}
        if self.nested_block is not None:
            sizes |= {"nested_absmax": math.ceil(blocks / self.nested_block), "nested_quant_map": NESTED_LEVELS}
        return sizes


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_count, value))


STATE_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "quant_type": (lambda value: value == "nf4", "nf4"),
    "blocksize": (lambda value: _is_count(value) and value in BLOCKS, f"one of {', '.join(map(str, BLOCKS))}"),
    "dtype": (lambda value: isinstance(value, str) and value in DTYPES, f"one of {', '.join(DTYPES)}"),
    "shape": (_is_shape, "the rows and columns of a matrix"),
}
NESTED_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "nested_blocksize": (_is_count, "a whole number above 0"),
    "nested_dtype": (lambda value: value == "float32", "float32"),
    "nested_offset": (lambda value: isinstance(value, int | float), "a number"),
}


def _read_state(source: str, tensor: Tensor, nested: bool) -> _State:
    try:
        fields = orjson.loads(bytes(tensor.view(torch.uint8).tolist()))
    except orjson.JSONDecodeError as error:
        raise InputError(f"{source} is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InputError(f"{source} does not hold a JSON object")
    checks = STATE_CHECKS | NESTED_CHECKS if nested else STATE_CHECKS
    _raise_faults(
        f"{source} gives {key} as {fields.get(key)!r}; it must be {wanted}"
        for key, (holds, wanted) in checks.items()
        if not holds(fields.get(key))
    )
    rows, columns = fields["shape"]
    nested_block, offset = (fields["nested_blocksize"], fields["nested_offset"]) if nested else (None, 0.0)
    return _State((rows, columns), fields["blocksize"], DTYPES[fields["dtype"]], nested_block, offset)


def _absences(name: str, pieces: Mapping[str, Tensor]) -> list[str]:
    if FP4_STATE in pieces:
        return [f"{name} is in bitsandbytes' fp4; Roslin reads nf4: take the model in nf4, or unquantised"]
    is_nested = any(piece in pieces for piece in NESTED_PIECES) or (
        "absmax" in pieces and pieces["absmax"].dtype == torch.uint8
    )
    needed = ("", *PIECES, *(NESTED_PIECES if is_nested else ()))
    return [f"{_full(name, piece)} is missing" for piece in needed if piece not in pieces]


def _misfits(name: str, state: _State, pieces: Mapping[str, Tensor]) -> list[str]:
    faults = []
    for piece, size in state.sizes().items():
        found, full = pieces[piece], _full(name, piece)
        are_codes = piece == "" or (piece == "absmax" and state.nested_block is not None)
        if len(found) != size:
            shape = list(state.shape)
            faults.append(f"{full} has {len(found):,} numbers; {shape} in blocks of {state.block} takes {size:,}")
        elif are_codes != (found.dtype == torch.uint8) or not (are_codes or found.is_floating_point()):
            faults.append(f"{full} holds {found.dtype}; it must be {'codes, uint8' if are_codes else 'float32'}")
    return faults


def _strange_map(name: str, quant_map: Tensor) -> list[str]:
    levels = torch.tensor(LEVELS, device=quant_map.device)
    is_strange = len(quant_map) == len(LEVELS) and not torch.allclose(quant_map.float(), levels, 0, MAP_TOLERANCE)
    return [f"{_full(name, 'quant_map')} does not hold the levels of nf4"] if is_strange else []


def _absmax(state: _State, pieces: Mapping[str, Tensor]) -> Tensor:
    absmax = pieces["absmax"]
    if state.nested_block is None:
        return absmax.float()
    block_of = torch.arange(len(absmax), device=absmax.device) // state.nested_block
    shares, scales = pieces["nested_quant_map"].float()[absmax.int()], pieces["nested_absmax"].float()[block_of]
    # Multiplied, then added to: the roundings are bitsandbytes' own.
    return shares * scales + state.nested_offset


def _full(name: str, piece: str) -> str:
    return f"{name}.{piece}" if piece else name


def _raise_faults(faults: Iterable[str]) -> None:
    if text := "; ".join(faults):
        raise InputError(text)
