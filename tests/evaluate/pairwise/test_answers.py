"""Both models' answers: the same as each gives alone, with one model in memory at a time."""

import weakref
from pathlib import Path

import pytest

from roslin.answer import Roslin
from roslin.evaluate.pairwise import answer_with_both
from roslin.model import load_decoder
from roslin.records import Record
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models; the second has fewer positions."""
    made = [tmp_path_factory.mktemp(name) for name in ("wide", "narrow")]
    for seed, (folder, positions) in enumerate(zip(made, (512, 128), strict=True)):
        tiny_gpt_neox(folder, vocab_size=8200, max_position_embeddings=positions, seed=seed)
    return made


def test_one_model_at_a_time_and_what_fits_both(folders: list[Path], base_folder: Path) -> None:
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    alive: list[weakref.ref[object]] = []

    def load(folder: Path) -> Roslin:
        assert all(reference() is None for reference in alive), "the other model is still in memory"
        roslin = Roslin(load_decoder(folder), tokenizer)
        alive.extend((weakref.ref(roslin), weakref.ref(roslin.decoder)))
        return roslin

    lengths = (1, 60, 2, 600, 3)
    records = [Record(instruction="Say it." + " Again." * n, response="Yes.") for n in lengths]
    told: list[int] = []
    wide, narrow = folders
    found = answer_with_both(
        records, lambda: load(wide), lambda: load(narrow), {"seed": 5, "max_new_tokens": 8}, told.append
    )
    assert [both.record for both in found] == [records[0], records[2], records[4]]
    assert told == [4, 3], "600 is too long for both, 60 for the second"
    for folder, name in ((wide, "a"), (narrow, "b")):
        alone = load(folder)
        for both in found:
            assert getattr(both, name) == alone.answer(both.record.instruction, seed=5, max_new_tokens=8).text
        del alone
