"""What tests of records share: a sound record, a check with the usual options, findings in short."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from roslin import prompt
from roslin.records import CheckOptions, CheckReport, check

GOOD = {"instruction": "Name a river.", "context": "", "response": "The Rhine.", "category": "open_qa"}

MakeFile = Callable[..., Path]
"""The fixture `make_file`."""
Codes = list[tuple[int, str, str]]


def checked(*paths: Path | str, **options: Any) -> CheckReport:
    """A check with the prompt's own keys and without near-duplicates, unless asked for."""
    return check(paths, CheckOptions(**{"keys": prompt.FORBIDDEN_IN_RECORDS, "near": False} | options))


def codes(report: CheckReport) -> Codes:
    """Line, field and code of each finding, errors first."""
    return [(f.line, f.field, f.code) for f in (*report.errors, *report.warnings)]
