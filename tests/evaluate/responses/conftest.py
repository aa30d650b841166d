"""Tiny models, and judged records made by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from roslin.answer import Roslin
from roslin.evaluate.responses import Drawing, Judged, Likelihood, ResponseReport, Traits
from roslin.model import fit_vocabulary, load_decoder
from roslin.records import Record
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox

MakeJudged = Callable[..., Judged]
MakeReport = Callable[..., ResponseReport]


@pytest.fixture(scope="package")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    """A random GPT-NeoX of 512 positions with the shipped base's tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_gpt_neox(folder, vocab_size=8192, tokenizer=base_folder)
    return folder


@pytest.fixture(scope="package")
def plain(tiny_folder: Path) -> Roslin:
    """The tiny model as it is: Dolly's keys are plain text to it."""
    return Roslin.load(str(tiny_folder), prompt="dolly")


@pytest.fixture(scope="package")
def keyed(tiny_folder: Path) -> Roslin:
    """The same model with Dolly's keys among its tokens."""
    decoder = load_decoder(tiny_folder, dtype=torch.float32)
    tokenizer = Tokenizer.load(tiny_folder)
    fit_vocabulary(decoder, tokenizer.size + 3, tokenizer.add_keys(), "mean")
    return Roslin(decoder, tokenizer)


@pytest.fixture
def judged() -> MakeJudged:
    """Makes a judged record; every part has a default."""

    def make(
        number: int = 1,
        *,
        instruction: str = "What is tea?",
        category: str = "open_qa",
        answer: str = "A drink.",
        nll: float = 8.0,
        tokens: int = 4,
        own_nll: float = 6.0,
        own_tokens: int = 3,
        length: int = 2,
        empty: bool = False,
        repetition: float = 0.0,
        loops: bool = False,
        echoed: bool = False,
        keys: bool = False,
        stopped: bool = True,
        rouge_l: float = 0.5,
    ) -> Judged:
        return Judged(
            number,
            Record(instruction=instruction, response="A hot drink.", category=category),
            Likelihood(nll, tokens, own_nll, own_tokens, 12),
            answer,
            stopped,
            Traits(length, empty, repetition, loops, echoed, keys),
            Traits(3, False, 0.0, False, False, False),
            rouge_l,
        )

    return make


@pytest.fixture
def report() -> MakeReport:
    """Makes a report of judged records."""

    def make(judged: list[Judged], name: str = "tiny") -> ResponseReport:
        return ResponseReport(name, "float32", Drawing(), judged, [])

    return make
