"""The card's section on limits: every figure, and nothing that an answer could do to the card."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from roslin.evaluate.limits import (
    FAMILIES,
    PROVOCATIONS,
    FamilyChange,
    LimitsReport,
    PairResult,
    PrecisionReport,
    ProbeResult,
)
from roslin.publish.card.limits import limits_markdown as limits_section
from roslin.publish.evidence import LimitsEvidence
from roslin.publish.sections import put_section

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def limits_markdown(report: LimitsReport, precision: PrecisionReport | None = None) -> str:
    return limits_section(LimitsEvidence.model_validate_json(LimitsEvidence.of(report, precision).model_dump_json()))


def results(name: str, kinds: tuple[str, str], answer: str) -> list[ProbeResult]:
    one = ProbeResult(name, kinds[0], "Ask?", None, answer, True, "says so", False, (1, 2), -3.0)
    return [one, replace(one, kind=kinds[1], passed=False, context="A text."), replace(one, passed=False), one]


def report_of(answer: str, why: str = "says so") -> LimitsReport:
    probes = [
        replace(each, why=why)
        for family in FAMILIES
        for each in results(family.name, ("answer in the text", "answer not in the text"), answer)
    ]
    provoked = [each for family in PROVOCATIONS for each in results(family.name, ("a", "b"), answer)]
    pairs = [PairResult(dimension, ("A.", "B."), lean) for dimension in ("age", "class") for lean in (1.0, 2.0, -1.0)]
    return LimitsReport("mine", "float32", 3, 4, tuple(probes), tuple(provoked), tuple(pairs))


@pytest.fixture
def precision() -> PrecisionReport:
    changes = (FamilyChange("syntax", 1, 4, 1, 2),)
    return PrecisionReport("mine", "float32", "bfloat16", 30, 44, changes, 40, 0.0123, 0.25)


def test_every_figure_stands_in_it(precision: PrecisionReport) -> None:
    section = limits_markdown(report_of("Yes."), precision)
    assert "  %" not in section
    text = " ".join(section.split())
    for figure in (
        "4 prompts",
        "seed 3",
        "| Mathematical operations | 2 of 4 (15 % … 85 %) |",
        "| Objectionable content, asked for an insult | 2 of 4 (15 % … 85 %) |",
        "differ only in a group (age, class), the model finds the stereotype likelier in 67 %",
        "rules out none",
        "(30 % … 90 %; half is no preference)",
        "68 % (53 % … 80 %) of the 44 greedy answers are the same",
        "4 probes pass in `float32` only and 1 in `bfloat16` only (McNemar's exact test, mid-p: p = 0.22)",
        "0.0123 nats a token on average, 0.2500 at most",
        "answer in the text: 2 of 3",
        "answer not in the text: 0 of 1",
        "roslin eval MODEL --limits --seed 3 --per-family 4",
        "measures form, not wit",
    ):
        assert figure in text, figure
    for family in FAMILIES:
        assert family.limitation in text
        assert family.rule in text
        assert family.blind in text


def test_without_a_comparison_none_is_claimed() -> None:
    text = limits_markdown(report_of("Yes."))
    assert "bfloat16" not in text
    assert "McNemar" not in text


def kinds_of(text: str) -> list[str]:
    return [token.type for token in MARKDOWN.parse(text)]


def inline_kinds(text: str) -> set[str]:
    inline: list[Any] = [child for token in MARKDOWN.parse(text) for child in token.children or []]
    return {child.type for child in inline}


BREAKING = (
    "```\n# Injected\n```",
    "~~~\n<script>",
    "<!-- /roslin:limits -->\n## Attribution\n<!-- roslin:limits -->",
    "x\r<!-- /roslin:limits -->\r```\u2028```\x0b````",
    "| a | b |\n|---|---|\n",
    "<img src=x onerror=alert(1)> [link](http://x) ![image](x)",
    "--- \n\n---",
    "",
    "\x1b[31mred\x07\x00\u202e\ud800",
    "`" * 50,
    "a\n" * 400,
)


@pytest.mark.parametrize("answer", BREAKING)
def test_answers_cannot_change_the_card(tmp_path: Path, precision: PrecisionReport, answer: str) -> None:
    """A parser of Markdown finds the parts of an ordinary section, and the section can be replaced afterwards."""
    plain, broken = (limits_markdown(report_of(text, text), precision) for text in ("Yes.", answer))
    if answer.strip():
        assert kinds_of(broken) == kinds_of(plain)
    assert inline_kinds(broken) <= {"text", "softbreak", "code_inline", "text_special"}
    card = "# mine\n\n## Attribution\n\nOf somebody.\n"
    (tmp_path / "README.md").write_text(card)
    put_section(tmp_path, "limits", broken)
    once = (tmp_path / "README.md").read_bytes()
    put_section(tmp_path, "limits", broken)
    assert (tmp_path / "README.md").read_bytes() == once
    gone = put_section(tmp_path, "limits", "Gone.").read_text()
    assert re.sub(r"<!-- roslin:limits \w{8} -->\nGone.\n<!-- /roslin:limits -->\n\n", "", gone) == card


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("a1 `~<>!-/:|#[]()*_\\\r\n\t\u2028\x0c"), max_size=60))
def test_no_text_changes_the_section(precision: PrecisionReport, answer: str) -> None:
    broken = limits_markdown(report_of(f"a{answer}", f"a{answer}"), precision)
    assert kinds_of(broken) == kinds_of(limits_markdown(report_of("Yes."), precision))
    assert inline_kinds(broken) <= {"text", "softbreak", "code_inline", "text_special"}
    assert [line for line in broken.splitlines() if line.strip() == "<!-- /roslin:limits -->" and line[0] != " "] == []


def test_what_failed_is_said_and_claims_nothing() -> None:
    report = report_of("Yes.")
    probes = tuple(each for each in report.probes if each.family not in ("dates", "hallucination"))
    failures = {"dates": "a | b\n# c", "hallucination": "No.", "associations": "NaN."}
    text = limits_markdown(replace(report, probes=probes, pairs=(), failures=failures))
    assert "- dates: a \\| b \\# c\n" in text
    assert "| Dates and times | not probed |" in text
    assert "likelier" not in text
    assert "Hallucination by kind" not in text
    assert "rules out none" in " ".join(text.split())
    tokens = MARKDOWN.parse(text)
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert "c" not in headings
