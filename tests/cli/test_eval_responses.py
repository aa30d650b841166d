"""What `roslin eval` shows of held-out records and of instructions that a program can check."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from roslin.cli.eval_responses import (
    print_json,
    response_progress,
    show_comparison,
    show_ifeval,
    show_ifeval_comparison,
    show_responses,
    write_samples,
)
from roslin.errors import MachineError
from roslin.evaluate.ifeval import AS_PUBLISHED, CheckedPrompt, Followed, IfevalReport, Instruction, compare_ifeval
from roslin.evaluate.responses import (
    METRICS,
    Drawing,
    Judged,
    LeftOut,
    Likelihood,
    Progress,
    ResponseReport,
    Traits,
    compare_responses,
)
from roslin.records import Record

NO_TRAITS = Traits(8, False, 0.0, False, False, False)


def report(name: str, *, nll: float = 30.0, end_tokens: int = 1, stopped: bool = True) -> ResponseReport:
    judged = [
        Judged(
            number,
            Record(instruction="Say it.", response="It.", category="open_qa" if number % 3 else "closed_qa"),
            Likelihood(nll + number, 10 + end_tokens, nll, 10, 40),
            "It is.",
            stopped,
            NO_TRAITS,
            NO_TRAITS,
            0.25,
        )
        for number in range(1, 31)
    ]
    left_out = [LeftOut(number, "open_qa", "9,000 tokens, and 2,048 positions") for number in range(31, 38)]
    return ResponseReport(name, "float32", Drawing(seed=5), judged, left_out)


def ifeval(name: str, answer: str) -> IfevalReport:
    instructions = (Instruction("punctuation:no_comma", {}), Instruction("change_case:english_lowercase", {}))
    followed = [Followed.of(CheckedPrompt(key, "Say it.", instructions), answer) for key in range(20)]
    return IfevalReport(name, "prompts.jsonl", AS_PUBLISHED, followed, [900], [901, 902])


def shown(show: object, value: object, width: int = 110) -> str:
    out = io.StringIO()
    show(value, Console(file=out, width=width, highlight=False))  # type: ignore[operator]
    return out.getvalue()


def test_every_metric_is_shown_with_its_interval() -> None:
    text = shown(show_responses, report("m"))
    for metric in METRICS:
        assert metric.title in text
    assert "m: 30 held-out records" in text
    rows = {line[:27].strip(): line[27:].split() for line in text.splitlines()}
    assert rows["loss without end key"][:4] == ["3.000", "3.000", "–", "3.000"]
    assert rows["stopped by itself"] == ["100.0", "%", "88.6", "%", "–", "100.0", "%"]
    assert "seed 5, at most 256 new tokens; weights in float32" in text
    assert "closed_qa" in text


def test_left_out_records_are_counted_and_named() -> None:
    text = shown(show_responses, report("m"))
    assert "Left out, being too long: 7 of 37 records." in text
    assert "record 31: 9,000 tokens, and 2,048 positions" in text
    assert "and for the same reasons records 36, 37" in text


def test_two_models_stand_side_by_side_with_verdicts() -> None:
    text = shown(show_comparison, compare_responses(report("base"), report("tuned", nll=20.0)), width=150)
    assert "base → tuned: 30 held-out records, paired" in text
    assert "lower by 1.000 nats a token: better" in text
    assert "no difference" in text
    assert "corrected (Holm)" in text
    unlike = shown(show_comparison, compare_responses(report("base", end_tokens=4), report("tuned")))
    assert "Bits per byte, which leave out the end key, compare" in " ".join(unlike.split())


def test_records_that_only_one_model_could_take_are_named() -> None:
    one = report("base")
    text = shown(show_comparison, compare_responses(one, replace(one, model="[b]", judged=one.judged[:-2])))
    assert "In no difference, as only one model could take them: records 29, 30." in text
    assert "base → [b]" in text


@pytest.mark.parametrize("width", [80, 110, 160])
def test_tables_fit_the_terminal(width: int) -> None:
    both = report("a-model-with-a-long-name-of-its-own"), report("another-model-with-a-long-name", nll=20.0)
    for text in (
        shown(show_responses, both[0], width),
        shown(show_comparison, compare_responses(*both), width),
        shown(show_ifeval, ifeval("m", "all well"), width),
    ):
        tables = [line for line in text.splitlines() if not line.startswith(("Answers ", "  "))]
        assert max(map(len, tables)) <= width


def test_instructions_followed_are_shown_by_kind() -> None:
    text = shown(show_ifeval, ifeval("m", "All well"))
    rows = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert rows["prompts, all of each"][:3] == ["20", "0.0", "%"]
    assert rows["instructions"][:3] == ["40", "50.0", "%"]
    assert rows["punctuation:no_comma"][:3] == ["20", "100.0", "%"]
    assert "greedy, at most 1280 new tokens" in text
    assert "not checked: prompts 900." in text
    assert "too few positions: prompts 901, 902." in text
    compared = shown(show_ifeval_comparison, compare_ifeval(ifeval("base", "All well"), ifeval("tuned", "all well")))
    assert "higher by 100.0 points: better" in compared


def test_json_is_one_object_a_line(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    found = report("m", nll=1e6)  # whose perplexity no number can hold
    print_json(found.as_dict())
    print_json(ifeval("m", "x").as_dict())
    first, second = capfdbinary.readouterr().out.splitlines()
    assert json.loads(first)["overall"]["perplexity"] == {"estimate": None, "low": None, "high": None}
    assert json.loads(second)["strict"]["prompts"]["estimate"] == 1.0


def test_samples_are_written_or_the_fault_is_told(tmp_path: Path) -> None:
    path = tmp_path / "samples.html"
    write_samples([report("base"), report("tuned")], path, count=3, seed=1)
    assert path.read_text(encoding="utf-8").count("<article>") == 3
    with pytest.raises(MachineError, match=r"nowhere"):
        write_samples([report("base")], tmp_path / "nowhere" / "samples.html", count=3, seed=1)


def test_progress_is_shown_on_a_terminal_alone() -> None:
    for terminal in (True, False):
        out = io.StringIO()
        with response_progress(Console(file=out, force_terminal=terminal, width=80), "base") as tell:
            for done in (1, 2):
                tell(Progress("scored", done, 2))
                tell(Progress("answered", done, 2))
            tell(Progress("answered", 5, 7))  # of other things
        for shown_bar in ("base: answered", "2/2", "5/7"):
            assert (shown_bar in out.getvalue()) == terminal
