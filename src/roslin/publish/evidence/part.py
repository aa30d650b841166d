"""What every piece of evidence is: plain values, read strictly."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from roslin.statistics import Interval


class Part(BaseModel):
    """A piece of evidence. Unknown keys, wrong types and numbers that are none are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Range(Part):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, interval: Interval) -> Range:
        """The same as an interval of `roslin.statistics`."""
        return cls(estimate=interval.estimate, low=interval.low, high=interval.high)

    @property
    def interval(self) -> Interval:
        """The interval."""
        return Interval(self.estimate, self.low, self.high)
