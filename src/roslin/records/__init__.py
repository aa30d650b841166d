"""Records: what one is, reading, checking, splitting, counting, writing."""

from roslin.records.check import CheckOptions, check
from roslin.records.columns import parse_mapping
from roslin.records.dedupe import Deduped, Repeat, dedupe
from roslin.records.finding import ERRORS, WARNINGS, CheckReport, Fault, Finding, encodable
from roslin.records.load import load
from roslin.records.record import DOLLY_CATEGORIES, Record
from roslin.records.sources import find_sources
from roslin.records.split import DOLLY_SEED, DOLLY_TEST_SIZE, dolly_split, split_by_count, split_by_hash
from roslin.records.stats import PERCENTILES, Lengths, RecordStats, count
from roslin.records.write import Fixed, require_other_files, require_outputs, write_jsonl, write_parts, write_passing

__all__ = [
    "DOLLY_CATEGORIES",
    "DOLLY_SEED",
    "DOLLY_TEST_SIZE",
    "ERRORS",
    "PERCENTILES",
    "WARNINGS",
    "CheckOptions",
    "CheckReport",
    "Deduped",
    "Fault",
    "Finding",
    "Fixed",
    "Lengths",
    "Record",
    "RecordStats",
    "Repeat",
    "check",
    "count",
    "dedupe",
    "dolly_split",
    "encodable",
    "find_sources",
    "load",
    "parse_mapping",
    "require_other_files",
    "require_outputs",
    "split_by_count",
    "split_by_hash",
    "write_jsonl",
    "write_parts",
    "write_passing",
]
