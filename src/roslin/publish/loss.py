"""Held-out loss of a base and of what was tuned from it, on the same records."""

from dataclasses import dataclass

from roslin.statistics import FEWEST_FOR_INTERVALS, Interval

TOO_FEW = f"no interval: fewer than {FEWEST_FOR_INTERVALS} held-out records are too few for one"


@dataclass(frozen=True)
class LossComparison:
    """Held-out loss (nats an answer token) of the base and of the tuned model on the same records."""

    records: int
    before: Interval
    after: Interval
    change: Interval
    """Paired over the records: after minus before."""

    @property
    def too_few(self) -> bool:
        """Whether the records are too few for resampling them to say anything."""
        return self.records < FEWEST_FOR_INTERVALS

    def figures(self) -> tuple[str, str, str]:
        """Before, after and change, with their intervals if there are records enough."""
        before, after, change = (
            f"{interval.estimate:.3f}" if self.too_few else str(interval)
            for interval in (self.before, self.after, self.change)
        )
        return before, after, change
