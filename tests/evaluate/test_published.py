"""The published table, digit for digit as the model card has it."""

from pathlib import Path

import pytest

from roslin.evaluate.published import COLUMNS, PUBLISHED_TABLE
from roslin.evaluate.tasks import TASKS
from roslin.statistics import gmean

CARD = """\
model openbookqa arc_easy winogrande hellaswag arc_challenge piqa boolq gmean
EleutherAI/pythia-2.8b 0.348 0.585859 0.589582 0.591217 0.323379 0.73395 0.638226 0.523431
EleutherAI/pythia-6.9b 0.368 0.604798 0.608524 0.631548 0.343857 0.761153 0.6263 0.543567
databricks/dolly-v2-3b 0.384 0.611532 0.589582 0.650767 0.370307 0.742655 0.575535 0.544886
EleutherAI/pythia-12b 0.364 0.627104 0.636148 0.668094 0.346416 0.760065 0.673394 0.559676
EleutherAI/gpt-j-6B 0.382 0.621633 0.651144 0.662617 0.363481 0.761153 0.655963 0.565936
databricks/dolly-v2-12b 0.408 0.63931 0.616417 0.707927 0.388225 0.757889 0.568196 0.56781
databricks/dolly-v2-7b 0.392 0.633838 0.607735 0.686517 0.406997 0.750816 0.644037 0.573487
databricks/dolly-v1-6b 0.41 0.62963 0.643252 0.676758 0.384812 0.773667 0.687768 0.583431
EleutherAI/gpt-neox-20b 0.402 0.683923 0.656669 0.7142 0.408703 0.784004 0.695413 0.602236
"""


def regenerated() -> str:
    lines = [" ".join(("model", *COLUMNS, "gmean"))]
    for row in PUBLISHED_TABLE:
        figures = (*row.accuracies, gmean(row.accuracies))
        lines.append(" ".join((row.name, *(f"{figure:.6g}" for figure in figures))))
    return "\n".join(lines) + "\n"


def test_every_cell_and_mean_is_the_cards() -> None:
    assert regenerated() == CARD
    assert sum(len(line.split()) - 1 for line in CARD.splitlines()[1:]) == 63 + 9


def test_the_card_itself_says_so(shared_data: Path) -> None:
    card = shared_data.parent / "design" / "dolly-v2-7b-model-card.txt"
    if not card.is_file():
        pytest.skip("needs the model card's text, which clones do not have")
    assert CARD in card.read_text(encoding="utf-8")


def test_no_other_count_gives_the_same_cell() -> None:
    for row in PUBLISHED_TABLE:
        for right, task in zip(row.right, COLUMNS, strict=True):
            cells = {f"{count / TASKS[task].size:.6g}" for count in (right - 1, right, right + 1)}
            assert len(cells) == 3


def test_the_table_is_of_the_seven_tasks() -> None:
    assert {task: (TASKS[task].size, TASKS[task].metric) for task in COLUMNS} == {
        "openbookqa": (500, "acc_norm"),
        "arc_easy": (2376, "acc_norm"),
        "winogrande": (1267, "acc"),
        "hellaswag": (10042, "acc_norm"),
        "arc_challenge": (1172, "acc_norm"),
        "piqa": (1838, "acc_norm"),
        "boolq": (3270, "acc"),
    }
    assert TASKS.keys() == set(COLUMNS)
