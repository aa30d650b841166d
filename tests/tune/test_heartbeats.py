"""Signs of life, between several in one process: each believes to be one of many."""

import os
import time
from collections.abc import Iterator

import pytest
from torch.distributed import HashStore

from roslin.tune import heartbeats
from roslin.tune.heartbeats import EXIT_CODE, Heartbeats

LONG = 60.0


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "BEAT", 0.02)
    monkeypatch.setattr(heartbeats, "SILENCE", 0.5)
    monkeypatch.setattr(heartbeats, "SILENCE_AFTER_FAILURE", 0.3)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Codes that this process would have ended with; threads that would have ended it go on."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    yield codes


def started(store: HashStore, count: int, limit: float = LONG) -> list[Heartbeats]:
    found = [Heartbeats(store, rank, count, limit) for rank in range(count)]
    for each in found:
        each.start()
    return found


def wait_for(exits: list[int]) -> None:
    deadline = time.monotonic() + 20
    while not exits and time.monotonic() < deadline:
        time.sleep(0.02)


def falls_silent(process: Heartbeats) -> None:
    process._stop_listening()


def test_the_silent_one_is_named_after_a_failure(exits: list[int]) -> None:
    first, second, third = started(HashStore(), 3)
    falls_silent(second)
    words = first.find_lost()
    assert words is not None
    assert words.startswith(
        f"Rank 1 (host {os.uname().nodename}, pid {os.getpid()}) has died or hangs: no sign of life"
    )
    assert third.find_lost() == words
    assert [first.first_to_tell(words), third.first_to_tell(words)] == [True, False]


def test_nobody_is_named_when_all_live(exits: list[int]) -> None:
    first, second = started(HashStore(), 2)
    assert first.find_lost() is None
    second.end()
    assert exits == []


def test_one_that_is_done_is_not_lost(exits: list[int]) -> None:
    first, second = started(HashStore(), 2)
    second.end()
    assert first.find_lost() is None


def test_one_that_an_error_ended_is_named_with_it(exits: list[int]) -> None:
    first, second = started(HashStore(), 2)
    second.end("records.jsonl: no such file.")
    words = first.find_lost()
    assert words is not None
    assert words.endswith("was ended by an error: records.jsonl: no such file.")


def test_a_process_that_hangs_in_an_exchange_is_ended_by_its_thread(
    exits: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = started(HashStore(), 2)
    falls_silent(second)
    wait_for(exits)
    first.end()
    assert exits[0] == EXIT_CODE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("roslin: Rank 1 (")


def test_who_keeps_the_others_waiting_is_named(exits: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """All live, and one has come less far: it hangs."""
    processes = started(HashStore(), 3, limit=0.6)
    for process in (processes[0], processes[2]):
        process.step()
    wait_for(exits)
    for process in processes:
        process.end()
    assert exits[0] == EXIT_CODE
    assert "Rank 1 (" in (told := capsys.readouterr().err)
    assert "hangs: it stands at step 0 of its passes and reads, and others wait at step 1" in told


def test_one_that_never_comes_is_named(exits: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    alone = Heartbeats(HashStore(), 0, 2, 0.4)
    alone.start()
    wait_for(exits)
    alone.end()
    assert "Rank 1 has not come: no sign of life from it within 0.4 s." in capsys.readouterr().err
