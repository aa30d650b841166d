"""Model folders that are fit to be published, to be spoilt by tests."""

from pathlib import Path

from tiny import tiny_gpt_neox

CARD = """---
language: [en]
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
base_model: EleutherAI/pythia-70m
---

# Tiny

## Use

`roslin ask ada/tiny "…"`, or see [the notice](NOTICE.md#top).

## Limits

It knows nothing.
"""


def publishable(folder: Path, base: Path, *, shard_size: str = "5GB", seed: int = 0) -> Path:
    """A tiny model with the base's tokenizer and a card, its weights in shards of a size."""
    model = tiny_gpt_neox(folder, vocab_size=8192, tokenizer=base, seed=seed)
    if shard_size != "5GB":
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, max_shard_size=shard_size)
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    (folder / "NOTICE.md").write_text("Of the base: Apache-2.0.\n", encoding="utf-8")
    return folder
