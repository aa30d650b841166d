"""The course of a run: which rows each of its updates takes, from the first to the last."""

import math
from collections.abc import Iterator, Sequence

from roslin.errors import InputError
from roslin.tune.packing import epoch_updates
from roslin.tune.recipe import Recipe

DOLLYS_WARMUP = 50
"""Updates of warm-up in Dolly's runs, which were some 600 updates long."""
MOST_WARMUP = 0.1
"""Share of a short run that warms up when the recipe does not say how much."""

Rows = list[list[int]]
"""The rows of one update, each a list of example indices."""


class Course:
    """The updates of a run. It follows from the recipe and the examples' lengths, so a resumed run finds it again."""

    def __init__(self, recipe: Recipe, lengths: Sequence[int]) -> None:
        """Lay out every epoch. Raises InputError when the recipe's warm-up is longer than the run."""
        self._recipe, self._lengths = recipe, lengths
        self._per_epoch = [len(self._epoch(epoch)) for epoch in range(math.ceil(recipe.epochs))]
        last = recipe.epochs - len(self._per_epoch) + 1
        self.updates = max(1, round(sum(self._per_epoch[:-1]) + self._per_epoch[-1] * last))
        self.warmup = self._warmup()

    def after(self, update: int) -> Iterator[Rows]:
        """The rows of updates `update` + 1, `update` + 2, … to the last."""
        number = 0
        for epoch, count in enumerate(self._per_epoch):
            if number + count <= update:
                number += count
                continue
            for rows in self._epoch(epoch):
                number += 1
                if number > self.updates:
                    return
                if number > update:
                    yield rows

    def _epoch(self, epoch: int) -> list[Rows]:
        recipe = self._recipe
        return epoch_updates(
            self._lengths,
            row_length=recipe.row_length,
            records_per_update=recipe.records_per_update,
            seed=recipe.seed,
            epoch=epoch,
        )

    def _warmup(self) -> int:
        asked = self._recipe.warmup_updates
        if asked is None:
            return min(DOLLYS_WARMUP, round(MOST_WARMUP * self.updates))
        if asked > self.updates:
            raise InputError(
                f"warmup_updates is {asked}, and the run has {self.updates} updates: the learning rate would never "
                f"reach {self._recipe.learning_rate:g}. Lower warmup_updates, or leave it out."
            )
        return asked
