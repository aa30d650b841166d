"""The small base with Dolly's keys, as a folder that Roslin wrote; its answers end, and its padding rows tempt."""

from pathlib import Path

import torch

from roslin.integrations.pipeline_files import add_pipelines
from roslin.model import load_decoder, save_decoder
from roslin.model.vocabulary import fit_vocabulary
from roslin.tokens import Tokenizer


def keyed_base(base: Path, folder: Path) -> Path:
    """Write the base into `folder` in float32, so that it says the end key where it would end a sentence.

    The rows of its head that stand for no token are more probable than any that does: whoever draws them is seen.
    """
    tokenizer = Tokenizer.load(base)
    decoder = load_decoder(base, dtype=torch.float32)
    new = tokenizer.add_keys()
    fit_vocabulary(decoder, tokenizer.size, new, "mean")
    [stop] = tokenizer.encode(".")
    with torch.no_grad():
        decoder.head.weight[tokenizer.end_id] = 1.02 * decoder.head.weight[stop]
        decoder.head.weight[tokenizer.size :] = 3 * decoder.head.weight[stop]
    folder.mkdir(parents=True)
    save_decoder(decoder, folder, end_id=tokenizer.end_id)
    tokenizer.save(folder)
    add_pipelines(folder)
    return folder
