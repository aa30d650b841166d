"""Tiny models of every family with Dolly's keys in their tokenizer, to be exported."""

from pathlib import Path
from typing import Any

import torch

from roslin.tokens import Tokenizer
from roslin.tokens.sentencepiece import sentencepiece_backend
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

TOKENS, ROWS = 8195, 8256
"""The base's tokens and the three keys; the head has padding rows more."""
SIZES: dict[str, Any] = {"vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 128}
LLAMA = SIZES | {"head_dim": 16}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "gpt_neox": (tiny_gpt_neox, SIZES),
    "gptj": (tiny_gptj, {"vocab_size": ROWS, "n_embd": 64}),
    "llama": (tiny_llama, LLAMA),
    "mistral": (tiny_llama, LLAMA | {"kind": "mistral"}),
    "qwen2": (tiny_llama, LLAMA | {"kind": "qwen2"}),
    "qwen3": (tiny_llama, LLAMA | {"kind": "qwen3"}),
}


def keyed_tokenizer(base: Path, folder: Path) -> Path:
    """The base's tokenizer with Dolly's keys, in a folder of its own."""
    tokenizer = Tokenizer.load(base)
    tokenizer.add_keys()
    tokenizer.save(folder)
    return folder


def made(family: str, folder: Path, tokenizer: Path, **changes: Any) -> Path:
    """A tiny model of a family, saved, with rows beyond the tokenizer."""
    maker, sizes = MODELS[family]
    maker(folder, tokenizer=tokenizer, **(sizes | changes))
    return folder


def sentencepiece_tokenizer(folder: Path) -> Path:
    """A SentencePiece tokenizer of some words, with bytes for all else, as Llama 2's."""
    words = ["▁the", "▁nuclear", "▁list", "ing", "▁of", "ion", "▁Paris", "er", "▁a", "on"]
    letters = sorted(set("".join(words)) | set("abcdefghijklmnopqrstuvwxyz▁"))
    parts = [word[:end] for word in words for end in range(2, len(word) + 1)]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *parts]
    vocabulary = {name: id for id, name in enumerate(dict.fromkeys(names))}
    scores = {name: -float(id) for name, id in vocabulary.items() if id >= 259}
    backend = sentencepiece_backend(vocabulary, scores, "<unk>", True)
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    Tokenizer(backend, {**named, "add_bos_token": True}).save(folder)
    return folder


def all_ids(count: int = 64) -> torch.Tensor:
    """A text in which ordinary tokens, the last ones and the keys stand, [1, T]."""
    source = torch.Generator().manual_seed(3)
    ids = torch.randint(0, TOKENS, (count,), generator=source)
    return torch.cat([ids, torch.arange(TOKENS - 4, TOKENS)])[None]
