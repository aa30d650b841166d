"""The table and its comparisons as objects for JSON. What has no value is null."""

import math
from typing import Any

from roslin.evaluate.table import Cell, Row, Table
from roslin.evaluate.verdicts import (
    LEVEL,
    PAIRED_INTERVAL,
    PAIRED_TEST,
    UNPAIRED_INTERVAL,
    UNPAIRED_TEST,
    Comparison,
    Gap,
    Verdict,
)
from roslin.statistics import CONFIDENCE, GeometricDifference, GeometricMean, Interval


def table_object(table: Table) -> dict[str, Any]:
    """All that is known of the table."""
    left_out = [{"profile": profile, "shots": shots, "runs": n} for (profile, shots), n in table.left_out.items()]
    return {
        "profile": table.profile,
        "shots": table.shots,
        "metric": table.metric,
        "confidence": CONFIDENCE,
        "rows": [_row(row) for row in table.rows],
        "left_out": left_out,
    }


def comparison_object(found: Comparison) -> dict[str, Any]:
    """All that is known of a comparison."""
    mean = found.gmean
    return {
        "model": found.name,
        "against": found.against,
        "paired": found.paired,
        "test": PAIRED_TEST if found.paired else UNPAIRED_TEST,
        "interval": PAIRED_INTERVAL if found.paired else UNPAIRED_INTERVAL,
        "level": LEVEL,
        "tasks": {task: _verdict(verdict) for task, verdict in found.verdicts.items()},
        "gmean": _errors(mean) | {"p": mean.p, "differs": found.gmean_differs} if mean else None,
        "notes": list(found.notes),
    }


def gap_object(found: Gap) -> dict[str, Any]:
    """All that is known of a gap."""
    return comparison_object(found.comparison) | {"gmean_holm_p": found.corrected_p, "gmean_verdict": found.verdict}


def _row(row: Row) -> dict[str, Any]:
    return {
        "label": row.label,
        "model": row.scores.name if row.scores else row.label,
        "source": row.source,
        "dtype": row.scores.dtype if row.scores else None,
        "tasks": {task: _cell(cell) for task, cell in row.cells.items()},
        "missing": list(row.missing),
        "gmean": _errors(row.gmean) if row.gmean else None,
    }


def _cell(cell: Cell) -> dict[str, Any]:
    share = cell.share
    return {
        "metric": cell.metric,
        "right": share.successes,
        "questions": share.trials,
        "of": cell.size,
        "partial": cell.partial,
        "accuracy": share.interval.estimate,
        "standard_error": _known(share.error),
        "interval": _bounds(share.interval),
        "clusters": cell.tally.clusters,
        "design_effect": _known(share.design_effect),
    }


def _errors(mean: GeometricMean | GeometricDifference) -> dict[str, Any]:
    return {
        "estimate": mean.estimate,
        "standard_error": mean.error,
        "delta": _bounds(mean.delta),
        "bootstrap": _bounds(mean.bootstrap),
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "accuracy": verdict.accuracy,
        "against_accuracy": verdict.against,
        "items": verdict.items,
        "questions": verdict.questions,
        "only_own": verdict.only_own,
        "only_other": verdict.only_other,
        "difference": verdict.difference.estimate,
        "interval": _bounds(verdict.difference),
        "p": verdict.p,
        "holm_p": verdict.corrected_p,
        "differs": verdict.differs,
        "verdict": str(verdict),
    }


def _bounds(interval: Interval | None) -> list[float] | None:
    return [interval.low, interval.high] if interval else None


def _known(figure: float) -> float | None:
    return None if math.isnan(figure) else figure
