"""A cache of the hub, laid out as huggingface_hub lays it out."""

from pathlib import Path

from tiny import tiny_gpt_neox

COMMIT = "a" * 40


def fill(cache: Path, name: str, *, commit: str = COMMIT, branch: str = "main", seed: int = 0) -> Path:
    """Put a tiny model into the cache under a hub name; the folder of its snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / branch).write_text(commit, encoding="utf-8")
    snapshot = repository / "snapshots" / commit
    tiny_gpt_neox(snapshot, seed=seed)
    return snapshot
