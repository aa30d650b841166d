"""An engine under random arrivals and cancels."""

from random import Random

from roslin.engine import Completion, Engine, Request


def soak(engine: Engine, waiting: list[Request], chance: Random) -> tuple[dict[int, Request], dict[int, Completion]]:
    """Random arrivals and cancels, until all have ended; no step tells two tokens of one request."""
    requests: dict[int, Request] = {}
    ended: dict[int, Completion] = {}
    while waiting or engine.busy:
        if waiting and chance.random() < 0.5:
            request = waiting.pop()
            requests[engine.submit(request)] = request
        for _ in range(chance.randrange(20)):
            events = engine.step()
            assert len({event.number for event in events}) == len(events)
            ended |= {event.number: event.completion for event in events if event.completion}
        if requests and chance.random() < 0.2:
            number = chance.choice(sorted(requests))
            completion = engine.cancel(number)
            assert (completion is None) == (number in ended)
            ended |= {number: completion} if completion else {}
    return requests, ended
