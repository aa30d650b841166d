"""The card's section on benchmarks."""

from made_evidence import benchmarks
from made_runs import drawn_run
from roslin.publish.card.benchmarks import benchmarks_markdown
from roslin.publish.evidence import BenchmarkEvidence


def markdown(found: BenchmarkEvidence) -> str:
    return benchmarks_markdown([BenchmarkEvidence.model_validate_json(found.model_dump_json())])


def test_a_raw_run_stands_among_the_published_rows_with_its_intervals() -> None:
    found = BenchmarkEvidence.of(drawn_run("databricks/dolly-v2-7b"), fingerprint=None, remarks=["Said of *it*."])
    text = markdown(found)
    assert text.startswith("## Benchmark Metrics\n")
    assert text.count("| databricks/dolly-v2-7b | ") == 1
    assert text.count("| databricks/dolly-v2-7b (own) | ") == 1
    assert "| EleutherAI/gpt-neox-20b | 0.402 |" in text
    intervals = [line for line in text.splitlines() if " … " in line]
    assert [line.split(" ")[1] for line in intervals][-2:] == ["boolq", "gmean"]
    assert len(intervals) == 8
    assert text.endswith("\n- Said of \\*it\\*.\n")
    assert "Comparison" not in text
    assert "Contamination" not in text


def test_a_part_run_in_the_models_own_prompt_stands_alone() -> None:
    run = drawn_run(profile="instruct", shots=2, tasks=("piqa",), questions=50)
    text = markdown(BenchmarkEvidence.of(run, fingerprint=None))
    assert "EleutherAI" not in text
    assert "with 2 examples" in text
    assert "of fewer questions than the task has" in text
    assert " of 50 |" in text
    assert "\n| gmean | " not in text


def test_the_base_s_row_verdicts_and_contamination_stand_beside_it() -> None:
    text = markdown(benchmarks())
    assert text.count("| its base | ") == 1
    assert "Comparison of mine against its base (own run, question by question)" in text
    assert "differs by" in text
    assert "| piqa | 17 of 1,838 | 0.617 |" in text
    assert "with the 400 records that the model was tuned on" in " ".join(text.split())


def test_intervals_are_those_of_the_run_with_its_clusters() -> None:
    """Counts alone would make boolq's interval narrower than its passages allow."""
    run = drawn_run()
    from roslin.evaluate.table import own_row

    share = own_row(run, "mine").cells["boolq"].share.interval
    assert f"{share.low:.3f} … {share.high:.3f} |" in markdown(BenchmarkEvidence.of(run, fingerprint=None))
