"""Comparisons and gaps in the figures and words that people read, for the terminal and for Markdown alike."""

from collections.abc import Sequence

from roslin.evaluate.verdicts import LEVEL, Comparison, Gap, Verdict
from roslin.statistics import GeometricDifference, Interval

COMPARED = ("task", "own", "other", "difference, 95 %", "p", "Holm", "verdict")
"""Headings of a comparison's lines."""
GAP = ("from", "to", "gap", "95 %", "p", "Holm", "verdict", "tasks that differ")
"""Headings of the gaps' lines."""
BOOLQ_AT_WORST = 1.3
"""Design effect where the questions of a passage are all right or all wrong: sum of squared passages by questions."""


def comparison_title(found: Comparison) -> str:
    """What is held against what, and how."""
    other = "own run, question by question" if found.paired else "published, by counts"
    return f"{found.name} against {found.against} ({other})"


def comparison_lines(found: Comparison) -> list[tuple[str, ...]]:
    """A line a task under COMPARED, and one for gmean where it is known."""
    lines = [(task, *_verdict_figures(verdict)) for task, verdict in found.verdicts.items()]
    return [*lines, _mean_line(found, found.gmean)] if found.gmean else lines


def comparison_notes(comparisons: Sequence[Comparison]) -> list[str]:
    """How the comparisons were made and what their figures do not say."""
    notes = [_method(paired) for paired in dict.fromkeys(found.paired for found in comparisons)]
    notes += [
        "Intervals and p are of each task alone. Verdicts go by Holm's p, which is corrected for the number of tasks: "
        "a difference whose interval leaves out 0 may be within noise. gmean is one figure, by the delta method, not "
        "corrected.",
        "Within noise: no difference was shown; how large one may yet be, the interval says.",
    ]
    if len(comparisons) > 1:
        notes.append(
            f"Each of the {len(comparisons)} comparisons is corrected for its own tasks only: where models do "
            "not differ, one comparison in twenty still calls a difference."
        )
    return notes


def gap_lines(gaps: Sequence[Gap]) -> list[tuple[str, ...]]:
    """A line a gap under GAP; what is not known is empty."""
    return [_gap_line(gap) for gap in gaps]


def gap_notes(gaps: Sequence[Gap]) -> list[str]:
    """What the gaps of the published table come to."""
    verdicts = [gap.verdict for gap in gaps]
    corrected = verdicts.count("differs")
    alone = corrected + verdicts.count("unsure")
    return [
        f"Of {len(gaps)} gaps in gmean, {alone} are more than noise when each is tested alone (p < {LEVEL}), and "
        f"{corrected} when corrected for being {len(gaps)} (Holm): unsure is what passes the first alone. Noise "
        "settles no order.",
        "Tasks: N - 1 chi-squared tests, corrected for the tasks of a gap (Holm), not for the number of gaps. Rows can "
        "differ by task and not in the mean.",
        "Only counts are published. All models were asked the same questions, so that tests of counts are mostly too "
        "careful: a gap called noise here might show question by question. Questions of boolq can share a passage, "
        f"which counts do not tell; were those of a passage all alike (design effect {BOOLQ_AT_WORST}), the same tasks "
        "would differ.",
    ]


def _method(paired: bool) -> str:
    if paired:
        return (
            "Own runs: p by McNemar's exact test (mid-p), intervals by paired bootstrap. Questions that belong "
            "together (boolq's passages) are allowed for."
        )
    return (
        "Published rows: p by the N - 1 chi-squared test, intervals by Newcombe's method. Only counts are known; were "
        "the answers known question by question, smaller differences would show."
    )


def _verdict_figures(verdict: Verdict) -> tuple[str, ...]:
    shares = f"{verdict.accuracy:.3f}", f"{verdict.against:.3f}"
    return (
        *shares,
        _difference(verdict.difference),
        _p(verdict.p),
        _p(verdict.corrected_p),
        str(verdict).removesuffix(" items"),
    )


def _mean_line(found: Comparison, mean: GeometricDifference) -> tuple[str, ...]:
    shown = _difference(mean.delta) if mean.delta else _signed(mean.estimate)
    differs = found.gmean_differs
    verdict = "not told" if differs is None else "differs" if differs else "within noise"
    return "gmean", "", "", shown, "" if mean.p is None else _p(mean.p), "", verdict


def _gap_line(gap: Gap) -> tuple[str, ...]:
    found, mean = gap.comparison, gap.comparison.gmean
    apart = ", ".join(task for task, verdict in found.verdicts.items() if verdict.differs) or "none"
    figures = (
        f"{mean.estimate:.4f}" if mean else "",
        _bounds(mean.delta) if mean and mean.delta else "",
        _p(mean.p) if mean and mean.p is not None else "",
        _p(gap.corrected_p) if gap.corrected_p is not None else "",
    )
    return found.against, found.name, *figures, gap.verdict or "not told", apart


def _difference(interval: Interval) -> str:
    return f"{_signed(interval.estimate)} {_bounds(interval)}"


def _bounds(interval: Interval) -> str:
    return f"[{_signed(interval.low)}, {_signed(interval.high)}]"


def _signed(value: float) -> str:
    """Three digits; differences of shares seldom reach 1, and a 0 before the point takes room."""
    return f"{value:+.3f}".replace("+0.", "+.").replace("-0.", "-.")


def _p(value: float) -> str:
    """Three digits, or four where three would hide on which side of LEVEL it is."""
    if value < 0.001:
        return "<.001"
    digits = 4 if round(value, 3) == LEVEL else 3
    return f"{value:.{digits}f}".removeprefix("0").replace("1.000", "1")
