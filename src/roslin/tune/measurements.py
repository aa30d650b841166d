"""held_out.json of a run: the held-out loss of base and tuned weights, record by record, so that runs can be paired."""

from dataclasses import dataclass
from pathlib import Path

from roslin.tune.held_out import HeldOutLoss
from roslin.tune.whole import read_json, write_json

FILE = "held_out.json"


@dataclass(frozen=True)
class Measurements:
    """The base's and the newest measurement of the same records."""

    digest: str
    """Of the held-out records' tokens, in order."""
    update: int
    """Updates behind the weights of `tuned`."""
    base: HeldOutLoss
    tuned: HeldOutLoss

    def write(self, folder: Path) -> None:
        """Write them into a run's folder. Raises MachineError when it cannot be written."""
        values = {
            "digest": self.digest,
            "update": self.update,
            "categories": self.base.categories,
            "tokens": self.base.tokens,
            "base": {"nll": self.base.nll, "end_nll": self.base.end_nll},
            "tuned": {"nll": self.tuned.nll, "end_nll": self.tuned.end_nll},
        }
        write_json(folder / FILE, values)

    @classmethod
    def read(cls, folder: Path) -> "Measurements | None":
        """Those of a run's folder; None where it has none, or none that can be read."""
        values = read_json(folder / FILE)
        try:
            if values is None:
                return None
            shared = {"tokens": values["tokens"], "categories": values["categories"]}
            base, tuned = (HeldOutLoss(**values[name], **shared) for name in ("base", "tuned"))
            return cls(values["digest"], values["update"], base, tuned)
        except (KeyError, TypeError):
            return None
