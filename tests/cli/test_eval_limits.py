"""`roslin eval MODEL --limits` as it prints, writes and refuses."""

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from roslin.cli.ask import load
from roslin.cli.eval_limits import LimitsOptions, as_object, eval_limits, show
from roslin.cli.screen import printable
from roslin.errors import InputError, MachineError
from roslin.evaluate.limits import (
    FAMILIES,
    PROVOCATIONS,
    LimitsReport,
    PairResult,
    PrecisionReport,
    ProbeResult,
)
from tiny import tiny_gpt_neox

NOT_TUNED = pytest.mark.filterwarnings("ignore:This model's tokenizer")


@pytest.fixture(scope="module")
def model(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    tiny_gpt_neox(path, tokenizer=base_folder, vocab_size=8192)
    return path


@pytest.fixture
def report() -> LimitsReport:
    def results(name: str) -> list[ProbeResult]:
        one = ProbeResult(name, "a kind", "Ask?", None, "\x1b[31mNo.\x07\nYes.", True, "says so", True, (1,), -1.0)
        return [one, ProbeResult(name, "other", "Ask!", "A text.", "Yes.", False, "says no", False, (2,), -2.0)]

    probes = [each for family in FAMILIES for each in results(family.name)]
    provoked = [each for family in PROVOCATIONS for each in results(family.name)]
    pairs = (PairResult("age", ("A.", "B."), 1.0), PairResult("class", ("C.", "D."), -1.0))
    return LimitsReport("mine", "float32", 3, 2, tuple(probes), tuple(provoked), pairs)


PRECISION = PrecisionReport("mine", "float32", "bfloat16", 20, 22, (), 22, 0.0123, 0.25)


@pytest.mark.parametrize("width", [80, 110])
def test_the_tables_fit_the_terminal(report: LimitsReport, width: int) -> None:
    out = io.StringIO()
    show(report, PRECISION, Console(file=out, width=width))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for family in FAMILIES:
        assert f"{family.limitation} 1 2 0.500 [0.095, 0.905] 1" in flat
        assert f"{family.limitation}: {family.blind}." in flat
    for words in (
        "Objectionable content, asked neutrally 1 2 0.500",
        "Stereotype preferred in 0.500 [0.095, 0.905] of 2 pairs (0.5: no preference)",
        "rules out none",
        "bfloat16 against float32: 0.909",
        "0.0123 nats a token on average, 0.2500 at most",
        "a kind 1 of 1, other 0 of 1",
    ):
        assert words in flat, words
    assert "\x1b" not in text
    assert "\x07" not in text


def test_answers_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[2J\x07b\nc\x9b") == "a\ufffd[2J\ufffdb\nc\ufffd"


def test_json_holds_shares_and_answers(report: LimitsReport) -> None:
    found = json.loads(json.dumps(as_object(report, PRECISION)))
    assert LimitsReport.from_dict(found["report"]) == report
    assert found["limits"].keys() == {family.name for family in FAMILIES}
    facts = found["limits"]["facts"]
    assert (facts["passed"], facts["of"], facts["cut"], facts["share"]["estimate"]) == (1, 2, 1, 0.5)
    assert facts["kinds"]["other"] == {"passed": 0, "of": 1, "cut": 0, "share": facts["kinds"]["other"]["share"]}
    assert {"limitation", "rule", "blind"} <= facts.keys()
    objectionable = found["objectionable"]
    assert objectionable["provocations"].keys() == {"neutral", "leading", "explicit"}
    assert objectionable["stereotyped_by_dimension"]["age"]["estimate"] == 1.0
    assert (found["precision"]["lost"], found["precision"]["p_value"]) == (0, 1.0)


@NOT_TUNED
def test_a_model_is_probed_and_its_card_written(model: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    card = model / "README.md"
    card.write_text("# mine\n\n## Attribution\n\nOf somebody.\n")
    try:
        eval_limits(str(model), LimitsOptions(seed=2, per_family=1, as_json=True, card=True))
        text = card.read_text()
    finally:
        card.unlink()
    out, err = capfdbinary.readouterr()
    found = json.loads(out)
    assert (found["report"]["model"], found["report"]["dtype"], found["report"]["seed"]) == (str(model), "float32", 2)
    assert (found["precision"]["reference"], found["precision"]["other"]) == ("float32", "bfloat16")
    assert f"Written into {card}" in err.decode()
    assert "--limits --seed 2 --per-family 1" in text
    assert text.index("/roslin:limits") < text.index("## Attribution")


@NOT_TUNED
@pytest.mark.parametrize(("broken", "left"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_a_dtype_that_fails_leaves_the_other(
    model: Path, broken: str, left: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def load_one(name: str, dtype: str, *rest: Any) -> Any:
        if dtype == broken:
            raise MachineError("Memory is full.")
        return load(name, dtype, *rest)

    monkeypatch.setattr("roslin.cli.eval_limits.load", load_one)
    with pytest.raises(MachineError, match=rf"1 of the parts failed.*\n{broken}: Memory is full\."):
        eval_limits(str(model), LimitsOptions(per_family=1, as_json=True))
    found = json.loads(capfdbinary.readouterr().out)
    assert (found["report"]["dtype"], found["precision"]) == (left, None)
    assert found["failures"] == {broken: "Memory is full."}


def test_no_dtype_is_no_result(
    model: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    def fail(*_: Any) -> None:
        raise MachineError("Memory is full.")

    monkeypatch.setattr("roslin.cli.eval_limits.load", fail)
    with pytest.raises(MachineError, match="float32: Memory is full"):
        eval_limits(str(model), LimitsOptions(per_family=1))
    assert not capfdbinary.readouterr().out


def test_what_failed_is_no_share(report: LimitsReport) -> None:
    probes = tuple(each for each in report.probes if each.family not in ("facts", "hallucination"))
    part = replace(report, probes=probes, pairs=(), failures={"facts": "x", "hallucination": "x", "associations": "x"})
    out = io.StringIO()
    show(part, None, Console(file=out, width=110))
    flat = " ".join(out.getvalue().split())
    assert "Factual errors 0 0 failed 0" in flat
    assert "Stereotype preferred in (failed) of 0 pairs" in flat
    assert "bfloat16" not in flat
    found = as_object(part, None)
    assert (found["limits"]["facts"]["share"], found["objectionable"]["stereotyped"]) == (None, None)


def test_a_missing_card_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.answer.Roslin.load", lambda *_, **__: pytest.fail("loaded"))
    for name in (str(tmp_path), "base"):
        with pytest.raises(InputError, match=r"has no README\.md"):
            eval_limits(name, LimitsOptions(card=True))


def test_the_command_imports_no_torch_before_it_runs() -> None:
    code = "import roslin.cli.eval_limits, sys; sys.exit('torch' in sys.modules or 'roslin.evaluate' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
