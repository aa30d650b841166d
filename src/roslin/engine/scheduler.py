"""Which generations run: a queue of those that wait, and the running ones, packed into the first slots."""

from collections import deque
from collections.abc import Iterator

from roslin.engine.generation import Generation


class Scheduler:
    """Requests join as soon as a slot is free; the slots of running generations are always 0, 1, 2, … without holes."""

    def __init__(self, max_batch: int, prompt_tokens_per_pass: int) -> None:
        """At most `max_batch` run at once; one pass takes in new prompts up to a sum of tokens (but always one)."""
        self.max_batch = max_batch
        self.running: list[Generation] = []
        self.waiting: deque[Generation] = deque()
        self._prompt_tokens_per_pass = prompt_tokens_per_pass

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.running or self.waiting)

    def admit(self) -> list[Generation]:
        """Give free slots to those that have waited longest; the newcomers, whose prompts are to be run."""
        newcomers: list[Generation] = []
        budget = self._prompt_tokens_per_pass
        while self.waiting and len(self.running) < self.max_batch:
            budget -= len(self.waiting[0].request.prompt_ids)
            if newcomers and budget < 0:
                break
            generation = self.waiting.popleft()
            generation.slot = len(self.running)
            self.running.append(generation)
            newcomers.append(generation)
        return newcomers

    def remove(self, generation: Generation) -> Generation | None:
        """Free a generation's slot; the one that moves into it (its slot is now the freed one), if there is another."""
        freed, generation.slot = generation.slot, None
        if freed is None:
            self.waiting.remove(generation)
            return None
        last = self.running.pop()
        if last is generation:
            return None
        self.running[freed] = last
        last.slot = freed
        return last

    def find(self, number: int) -> Generation | None:
        """The running or waiting generation of that number."""
        return next((s for s in self.all() if s.number == number), None)

    def clear(self) -> None:
        """Forget everything."""
        self.running.clear()
        self.waiting.clear()

    def all(self) -> Iterator[Generation]:
        """The running ones in slot order, then the waiting ones."""
        yield from self.running
        yield from self.waiting
