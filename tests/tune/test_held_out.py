"""Held-out loss: what it is measured on, and the end key apart."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from roslin.errors import InputError
from roslin.model import PackedAttention, packed_positions
from roslin.tune import HeldOutSet, Recipe, fit, prepare
from run_recipes import changed


def test_a_held_out_file_is_what_is_measured(recipe: Recipe, records_file: Path, tmp_path: Path) -> None:
    lines = records_file.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:50]), encoding="utf-8")
    (tmp_path / "other.jsonl").write_text("".join(lines[50:]), encoding="utf-8")
    values = {"records": [str(tmp_path / "train.jsonl")], "held_out": {"file": str(tmp_path / "other.jsonl")}}
    apart = changed(recipe, **values, epochs=0.5)
    prepared = prepare(apart)
    assert (len(prepared.examples), len(prepared.held_out)) == (50, 10)
    fit(apart, prepared)

    (tmp_path / "other.jsonl").write_text("".join(lines[52:]), encoding="utf-8")
    with pytest.raises(InputError, match="another recipe, another base or other records"):
        fit(apart, prepare(apart))
    (tmp_path / "other.jsonl").write_text("".join(lines[45:]), encoding="utf-8")
    with pytest.raises(InputError, match="5 of its 15 records are asked in the training records too"):
        prepare(apart)


def test_the_end_key_is_counted_apart(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    example = prepared.examples[0]
    measured = HeldOutSet([example], ["x"], 256).measure(prepared.decoder)
    ids = torch.tensor(example.ids)
    with torch.no_grad():
        logits = prepared.decoder(ids, packed_positions([len(ids)]), PackedAttention([len(ids)]))
    nll = F.cross_entropy(logits[:-1], ids[1:], reduction="none")[example.answer_start - 1 :]
    assert measured.end_nll == [pytest.approx(float(nll[-1]), rel=1e-5)]
    assert measured.nll_without_end == [pytest.approx(float(nll[:-1].sum()), rel=1e-5)]
    assert measured.tokens_without_end == [len(nll) - 1]
