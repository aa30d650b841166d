"""The notebooks: what is committed is whole and clean, and runs again from nothing."""

from pathlib import Path

import pytest

from notebook_files import NAMES, code_cells, executed, path_of, read, texts, unwanted

every_notebook = pytest.mark.parametrize("name", NAMES)

HOLDS = {
    "tune_your_own_records": """
assert evaluations[-1]["held_out"] < evaluations[0]["held_out"] - 2
assert right >= 2 and stopped >= len(after) - 1 and stopped_before == 0
""",
    "ask_and_compare": """
assert ours[0]["generated_text"].startswith("The command roslin chat opens")
assert "".join(pieces) == stream.answer.text
assert sum(answer.finish_reason == "stop" for answer in asked["tuned"]) >= 2
assert not any(answer.finish_reason == "stop" for answer in asked["base"])
""",
    "evaluate": """
import re
_, high = re.search(r"bits per byte .* \\[(-?[\\d.]+), (-?[\\d.]+)\\]", Path("change.txt").read_text()).groups()
assert float(high) < 0
low, _ = re.search(r"stopped by itself .* \\[([+-][\\d.]+), ([+-][\\d.]+)\\]", Path("change.txt").read_text()).groups()
assert float(low) > 0
""",
}
"""What must have come out, checked in the notebook's own kernel after its last cell."""


@every_notebook
def test_what_is_committed_has_run_from_top_to_bottom_and_shows_nothing_of_the_machine(name: str) -> None:
    notebook = read(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) - 2
    assert unwanted(notebook) == []


def test_what_should_not_be_committed_is_seen() -> None:
    notebook = read("evaluate")
    [cell, *_] = code_cells(notebook)
    stream = {"output_type": "stream", "name": "stdout"}
    for text in ("in /home/ann/x.py:1", "2026-11-26", "at 12:30:01", "\x1b[1m", "30%|###"):
        cell.outputs = [type(cell)(stream | {"text": text})]
        assert len(unwanted(notebook)) == 1, text
    cell.outputs = [type(cell)(output_type="error", ename="E", evalue="", traceback=[])]
    assert unwanted(notebook) == ["an error: E: "]


@pytest.mark.full
@every_notebook
def test_it_runs_again_from_nothing(name: str, tmp_path: Path) -> None:
    committed = read(name)
    again = executed(name, tmp_path, HOLDS[name])
    own = again.cells[:-1]
    assert [cell.source for cell in own] == [cell.source for cell in committed.cells]
    assert all(cell.execution_count for cell in own if cell.cell_type == "code")
    assert unwanted(again) == []
    assert len(list(texts(again))) >= len(list(texts(committed))) - 1
    assert path_of(name).parent not in tmp_path.parents
