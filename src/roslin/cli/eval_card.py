"""What the works of `roslin eval` share where `--card` was given."""

from pathlib import Path

from rich.text import Text

from roslin.cli.screen import progress_console


def require_card_of(model: str, section: str) -> None:
    """Raise InputError before any work where the model is no folder with a card, or its evidence cannot be read."""
    from roslin.publish.evidence import read_evidence
    from roslin.publish.sections import require_card

    folder = Path(model).expanduser()
    require_card(folder, section)
    read_evidence(folder)


def fingerprint_of(model: str) -> str:
    """The hash of a model's weights, configuration and tokenizer."""
    from roslin.model import find_model
    from roslin.model.fingerprint import fingerprint

    return fingerprint(find_model(model))


def say_written(card: Path) -> None:
    """Say where what was found can be read."""
    from roslin.publish.evidence import EVIDENCE

    progress_console().print(Text(f"Written into {card}, and into {EVIDENCE} beside it"))
