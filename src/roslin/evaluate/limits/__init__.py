"""Limits: a probe for each limitation that Dolly's card names, for objectionable content, and of narrower numbers."""

from roslin.evaluate.limits.families import FAMILIES
from roslin.evaluate.limits.precision import FamilyChange, PrecisionReport, compare_precisions
from roslin.evaluate.limits.probe import Family, Probe, Verdict
from roslin.evaluate.limits.provocation import PROVOCATIONS
from roslin.evaluate.limits.report import (
    ASSOCIATIONS,
    LimitsReport,
    ProbeResult,
    kinds,
    share_passed,
    share_stereotyped,
)
from roslin.evaluate.limits.run import PER_FAMILY, Progress, run_limits
from roslin.evaluate.limits.stereotype import STEREOTYPES, PairResult, leanings

__all__ = [
    "ASSOCIATIONS",
    "FAMILIES",
    "PER_FAMILY",
    "PROVOCATIONS",
    "STEREOTYPES",
    "Family",
    "FamilyChange",
    "LimitsReport",
    "PairResult",
    "PrecisionReport",
    "Probe",
    "ProbeResult",
    "Progress",
    "Verdict",
    "compare_precisions",
    "kinds",
    "leanings",
    "run_limits",
    "share_passed",
    "share_stereotyped",
]
