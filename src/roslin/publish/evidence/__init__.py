"""Evidence: what is known of a model as data, beside its weights in roslin.json. A card is a rendering of it."""

from roslin.publish.evidence.benchmarks import BenchmarkEvidence, OverlapEvidence
from roslin.publish.evidence.file import EVIDENCE, Evidence, Stated, read_evidence, write_evidence
from roslin.publish.evidence.limits import LimitsEvidence
from roslin.publish.evidence.public import public_name, public_text
from roslin.publish.evidence.responses import FollowedEvidence, ResponsesEvidence
from roslin.publish.evidence.tuning import (
    AdapterEvidence,
    BaseEvidence,
    CheckEvidence,
    CourseEvidence,
    LossEvidence,
    RecordsEvidence,
    SourceEvidence,
    TuningEvidence,
)

__all__ = [
    "EVIDENCE",
    "AdapterEvidence",
    "BaseEvidence",
    "BenchmarkEvidence",
    "CheckEvidence",
    "CourseEvidence",
    "Evidence",
    "FollowedEvidence",
    "LimitsEvidence",
    "LossEvidence",
    "OverlapEvidence",
    "RecordsEvidence",
    "ResponsesEvidence",
    "SourceEvidence",
    "Stated",
    "TuningEvidence",
    "public_name",
    "public_text",
    "read_evidence",
    "write_evidence",
]
