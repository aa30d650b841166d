"""A small model that guesses ahead for a larger one: loaded, and refused where it does not speak the same tokens."""

import torch

from roslin.answer.device import pick_dtype
from roslin.engine import Network, fuse
from roslin.errors import InputError
from roslin.model import find_model, load_config, load_for_answering, text_source
from roslin.tokens import Tokenizer


def load_draft(name: str, model: str, tokenizer: Tokenizer, dtype: str, device: torch.device) -> Network:
    """The draft model `name` for `model`, which has that tokenizer.

    Raises InputError where it cannot be loaded, or has not the same tokens with the same ids.
    """
    folder = find_model(name)
    if fault := _difference(Tokenizer.load(text_source(folder)), tokenizer, model):
        raise InputError(
            f"{name} cannot guess for {model}: {fault}. "
            "A draft model must have the same tokenizer: take a smaller one of the same family, tuned in the same way."
        )
    config = load_config(folder)
    return fuse(load_for_answering(folder, dtype=pick_dtype(dtype, config, device), device=device, config=config))


def _difference(own: Tokenizer, other: Tokenizer, model: str) -> str | None:
    """What the vocabularies differ in, in words; None where they are the same."""
    ids, wanted = own.vocabulary, other.vocabulary
    if ids == wanted:
        return None
    if len(ids) != len(wanted):
        return f"its tokenizer has {len(ids):,} tokens, that of {model} {len(wanted):,}"
    token = min((token for token, id in wanted.items() if ids.get(token) != id), key=wanted.__getitem__)
    has = f"as {ids[token]}" if token in ids else "not at all"
    return f"its tokenizer has {token!r} {has}, that of {model} as {wanted[token]}"
