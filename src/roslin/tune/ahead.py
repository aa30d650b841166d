"""Making things one ahead: while the device works on one, another thread makes the next."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(items: Iterable[Item], make: Callable[[Item], Made]) -> Iterator[tuple[Item, Made]]:
    """Each item and what `make` makes of it, in order. Raises what `make` raises, when its item's turn comes."""
    with ThreadPoolExecutor(max_workers=1) as maker:
        waiting: tuple[Item, Future[Made]] | None = None
        for item in items:
            following = (item, maker.submit(make, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()
