"""What a model makes of held-out instruction records."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from roslin.evaluate.responses.drawing import Drawing
from roslin.evaluate.responses.figures import Figures, figures, reference_figures
from roslin.evaluate.responses.judged import Judged, LeftOut


@dataclass(frozen=True)
class ResponseReport:
    """A model judged by records: the records one by one, and their figures by category and overall."""

    model: str
    dtype: str
    drawing: Drawing
    judged: Sequence[Judged]
    left_out: Sequence[LeftOut]

    @cached_property
    def overall(self) -> Figures:
        """The figures of all records."""
        return figures(self.judged)

    @cached_property
    def by_category(self) -> dict[str, Figures]:
        """The figures of each category, in alphabetic order."""
        return {name: figures(part) for name, part in by_category(self.judged).items()}

    @cached_property
    def references(self) -> Figures:
        """Length and repetition of the records' own responses: what an answer's are to be held against."""
        return reference_figures(self.judged)

    def as_dict(self) -> dict[str, Any]:
        """The whole report as JSON has it. A perplexity beyond the largest float is infinite, which orjson nulls."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "drawing": asdict(self.drawing),
            "records": len(self.judged),
            "left_out": [asdict(record) for record in self.left_out],
            "overall": self.overall.as_dict(),
            "by_category": {name: found.as_dict() for name, found in self.by_category.items()},
            "references": self.references.as_dict(),
            "answers": [judged.as_dict() for judged in self.judged],
        }


def by_category(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Records by their category, in alphabetic order of it."""
    parts: dict[str, list[Judged]] = {name: [] for name in sorted({each.category for each in judged})}
    for each in judged:
        parts[each.category].append(each)
    return parts
