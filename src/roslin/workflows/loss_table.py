"""Two measurements of the same held-out records as a table."""

from collections.abc import Mapping

from rich.table import Table
from rich.text import Text

from roslin.publish import LossComparison


def loss_table(
    title: str,
    names: tuple[str, str],
    whole: LossComparison,
    by_category: Mapping[str, LossComparison],
) -> Table:
    """Losses on the same records, by category and over all, with 95 % intervals where records are enough for them."""
    table = Table(title=f"{title} (nats a token; 95 % intervals over records)", title_justify="left")
    for name in ("category", "records", *names, "paired change", ""):
        table.add_column(name, justify="right" if name == "records" else "left")
    for name, comparison in (*by_category.items(), ("all", whole)):
        note = "too few records for an interval" if comparison.too_few else ""
        table.add_row(Text(name), f"{comparison.records:,}", *map(Text, (*comparison.figures(), note)))
    return table
