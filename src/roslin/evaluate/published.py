"""The published table: what the model card of databricks/dolly-v2-7b says of nine models, as counts of right answers.

The card prints shares; each is that of one whole number of the task's questions alone. It was made with the LM
Evaluation Harness, zero-shot; with which checkpoints, precision and version of the harness is not told.
"""

from dataclasses import dataclass

from roslin.evaluate.tasks import TASKS

COLUMNS = ("openbookqa", "arc_easy", "winogrande", "hellaswag", "arc_challenge", "piqa", "boolq")
"""The tasks in the card's order; how many questions they have and by which metric they count is in `tasks.TASKS`."""


@dataclass(frozen=True)
class PublishedRow:
    """One model of the published table."""

    name: str
    right: tuple[int, ...]
    """Questions answered rightly, by the tasks of COLUMNS."""

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Share of each task's questions answered rightly."""
        return tuple(right / TASKS[task].size for right, task in zip(self.right, COLUMNS, strict=True))


PUBLISHED_TABLE = (
    PublishedRow("EleutherAI/pythia-2.8b", (174, 1392, 747, 5937, 379, 1349, 2087)),
    PublishedRow("EleutherAI/pythia-6.9b", (184, 1437, 771, 6342, 403, 1399, 2048)),
    PublishedRow("databricks/dolly-v2-3b", (192, 1453, 747, 6535, 434, 1365, 1882)),
    PublishedRow("EleutherAI/pythia-12b", (182, 1490, 806, 6709, 406, 1397, 2202)),
    PublishedRow("EleutherAI/gpt-j-6B", (191, 1477, 825, 6654, 426, 1399, 2145)),
    PublishedRow("databricks/dolly-v2-12b", (204, 1519, 781, 7109, 455, 1393, 1858)),
    PublishedRow("databricks/dolly-v2-7b", (196, 1506, 770, 6894, 477, 1380, 2106)),
    PublishedRow("databricks/dolly-v1-6b", (205, 1496, 815, 6796, 451, 1422, 2249)),
    PublishedRow("EleutherAI/gpt-neox-20b", (201, 1625, 832, 7172, 479, 1441, 2274)),
)
"""In the card's order: ascending by the geometric mean of the seven shares."""
