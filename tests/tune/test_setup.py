"""What comes before the first update: records that do not fit, the rows of the keys, and positions."""

import json
from pathlib import Path

import pytest
import torch

from roslin import prompt
from roslin.errors import InputError
from roslin.model import load_config, save_decoder
from roslin.tune import Recipe, prepare
from run_recipes import changed


def test_records_too_long_are_dropped_and_listed(recipe: Recipe) -> None:
    short = changed(recipe, max_length=60)
    prepared = prepare(short)
    lengths = prepared.tokenizer.lengths([d.record for d in prepared.dropped])
    assert prepared.dropped
    assert [d.tokens for d in prepared.dropped] == lengths
    assert min(lengths) >= 60
    assert max(len(e.ids) for e in prepared.examples) < 60
    whole = prepare(recipe)
    assert len(prepared.dropped) + len(prepared.examples) + len(prepared.held_out) == 60
    assert len(whole.examples) + len(whole.held_out) == 60
    with pytest.raises(InputError, match="Nothing to tune on"):
        prepare(changed(recipe, max_length=20))


def test_bad_records_stop_a_run_before_it_loads_a_model(recipe: Recipe, records_file: Path) -> None:
    with records_file.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"instruction": "x", "response": f"y {prompt.END_KEY}"}) + "\n")
        file.write("{broken\n")
    with pytest.raises(InputError, match=r"(?s)records.jsonl:61.*records.jsonl:62"):
        prepare(recipe)


def test_the_base_rows_stay_and_the_keys_get_the_mean(recipe: Recipe) -> None:
    prepared = prepare(recipe)
    rows = prepared.decoder.embedding.weight
    keys = rows[8192:8195]
    torch.testing.assert_close(keys, rows[:8192].float().mean(0).expand(3, -1).to(keys.dtype), rtol=1e-2, atol=1e-4)


def test_a_length_beyond_the_positions_is_refused(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="positions"):
        prepare(changed(recipe, max_length=4096, row_length=4096))


def test_stretched_positions_take_longer_records_and_stay_with_the_model(recipe: Recipe, tmp_path: Path) -> None:
    longer = changed(recipe, max_length=1000, row_length=1000)
    with pytest.raises(InputError, match="512 positions"):
        prepare(longer)
    prepared = prepare(changed(longer, rope_scaling="yarn:2"))
    assert prepared.decoder.config.positions == 1024
    save_decoder(prepared.decoder, tmp_path)
    assert load_config(tmp_path).rotary_scaling == prepared.decoder.config.rotary_scaling
    assert prepared.fingerprint != prepare(changed(longer, rope_scaling="linear:2")).fingerprint
