"""A tiny model on disk and a few records, to run whole tunings on."""

import json
import random
from pathlib import Path

import pytest

from roslin.tune import Recipe
from tiny import tiny_gpt_neox

WORDS = [
    "river",
    "stone",
    "bird",
    "light",
    "house",
    "garden",
    "winter",
    "bread",
    "music",
    "letter",
    "small",
    "old",
    "green",
    "quiet",
]


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A random GPT-NeoX of two layers with the shipped base's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny-base")
    tiny_gpt_neox(folder, vocab_size=8192)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base_folder / name).read_bytes())
    return folder


@pytest.fixture
def records_file(tmp_path: Path) -> Path:
    """Sixty different records in two categories."""
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(count))

    path = tmp_path / "records.jsonl"
    rows = [
        {
            "instruction": f"Say {words(4)} {n}.",
            "context": words(rng.randint(0, 12)),
            "response": words(rng.randint(3, 25)),
            "category": ["open_qa", "summarization"][n % 2],
        }
        for n in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def recipe(tiny_base: Path, records_file: Path, tmp_path: Path) -> Recipe:
    """A short run in fp32."""
    return Recipe.parse(
        {
            "model": str(tiny_base),
            "records": [str(records_file)],
            "output": str(tmp_path / "run"),
            "held_out": {"fraction": 0.2},
            "epochs": 3,
            "records_per_update": 6,
            "row_length": 256,
            "max_length": 128,
            "learning_rate": 1e-3,
            "warmup_updates": 3,
            "precision": "fp32",
            "evaluate_every": 5,
            "checkpoint_every": 4,
            "tensorboard": False,
        }
    )
