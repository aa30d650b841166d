"""The card's section on benchmarks."""

from made_runs import drawn_run
from roslin.publish.benchmarks import benchmarks_markdown


def test_a_raw_run_stands_among_the_published_rows_with_its_intervals() -> None:
    text = benchmarks_markdown(drawn_run("databricks/dolly-v2-7b"), ["Said of *it*."])
    assert text.startswith("## Benchmarks\n")
    assert text.count("| databricks/dolly-v2-7b | ") == 1
    assert text.count("| databricks/dolly-v2-7b (own) | ") == 1
    assert "| EleutherAI/gpt-neox-20b | 0.402 |" in text
    intervals = [line for line in text.splitlines() if " … " in line]
    assert [line.split(" ")[1] for line in intervals][-2:] == ["boolq", "gmean"]
    assert len(intervals) == 8
    assert text.endswith("\n- Said of \\*it\\*.\n")


def test_a_part_run_in_the_models_own_prompt_stands_alone() -> None:
    text = benchmarks_markdown(drawn_run(profile="instruct", shots=2, tasks=("piqa",), questions=50))
    assert "EleutherAI" not in text
    assert "with 2 examples" in text
    assert "of fewer questions than the task has" in text
    assert " of 50 |" in text
    assert "\n| gmean | " not in text
