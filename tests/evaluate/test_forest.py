"""The forest plot: what is drawn of each row, and where it is written."""

import sys
from pathlib import Path

import pytest

from made_runs import drawn_run
from roslin.errors import InputError, UsageError
from roslin.evaluate.forest import MEAN, draw_forest, intervals_of, write_forest
from roslin.evaluate.published import COLUMNS
from roslin.evaluate.table import make_table


def test_each_panel_has_each_models_interval() -> None:
    table = make_table([drawn_run("own/model"), drawn_run("half", tasks=("piqa",), questions=50)])
    panels = draw_forest(table).axes
    assert [panel.get_title() for panel in panels] == [*COLUMNS, MEAN]
    for panel in panels:
        drawn = {}
        for bars in panel.collections:
            [[(low, place), (high, _)]] = bars.get_segments()
            drawn[round(place)] = (low, high)
        wanted = {
            place: (found.low, found.high)
            for place, row in enumerate(table.rows)
            if (found := intervals_of(row).get(panel.get_title()))
        }
        assert drawn == wanted
    assert len(panels[0].collections) == 10
    assert len(panels[COLUMNS.index("piqa")].collections) == 11
    labels = [text.get_text() for text in panels[0].get_yticklabels()]
    assert labels == [row.label for row in table.rows]
    bottom, top = panels[0].get_ylim()
    assert top < bottom


def test_intervals_of_a_row_are_the_tables() -> None:
    [row] = make_table([drawn_run(questions=300)], published=False).rows
    found = intervals_of(row)
    assert found["boolq"] == row.cells["boolq"].share.interval
    assert row.gmean
    assert found[MEAN] == row.gmean.delta


def test_a_mean_without_an_interval_is_a_point() -> None:
    [row] = make_table([drawn_run(accuracy=2, questions=5)], published=False).rows
    found = intervals_of(row)[MEAN]
    assert (found.low, found.estimate, found.high) == (1, 1, 1)


def test_the_image_is_written(tmp_path: Path) -> None:
    write_forest(make_table([]), tmp_path / "table.png")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="cannot be written"):
        write_forest(make_table([]), tmp_path / "none" / "table.png")


def test_a_name_with_dollar_signs_is_no_formula(tmp_path: Path) -> None:
    write_forest(make_table([drawn_run(r"a$\frac$b", questions=20)]), tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 0


def test_a_missing_matplotlib_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(UsageError, match=r"roslin\[eval\]"):
        write_forest(make_table([]), tmp_path / "table.png")
