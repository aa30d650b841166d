"""Speed and memory of `roslin records check` on many synthetic records, in its two modes.

usage: python bench/records_check.py [--count 1000000] [--tokenizer base]

Writes a JSONL file of about 500 bytes a record (lengths as uneven as dolly-15k's; 1 % exact copies, 1 % copies with a
word changed, 0.01 % of the lines faulty) in a temporary folder, checks it by the command line, and removes it. Goals:
without token and near-duplicate checks, under 60 s and 500 MB; with them, under 6 minutes. Two more runs say what the
token counting costs where no record is surely short enough to need none (`--max-length 64`), and `records stats`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import orjson

CATEGORIES = ("open_qa", "general_qa", "classification", "closed_qa", "brainstorming", "summarization")
BLOCK = 10_000
GOAL_SECONDS, GOAL_MEGABYTES, GOAL_SECONDS_WITH_ALL = 60, 500, 360


def vocabulary() -> list[str]:
    """The words of the starter records, the frequent ones often."""
    folder = Path(str(files("roslin"))) / "assets" / "records"
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    return " ".join(orjson.loads(line)["response"] for line in lines).split()


def texts(words: np.ndarray, random: np.random.Generator, lengths: np.ndarray) -> Iterator[str]:
    drawn = words[random.integers(0, len(words), int(lengths.sum()))].tolist()
    start = 0
    for length in lengths.tolist():
        yield " ".join(drawn[start : start + length])
        start += length


def block(words: np.ndarray, random: np.random.Generator) -> list[bytes]:
    instructions = texts(words, random, random.integers(4, 22, BLOCK))
    contexts = texts(
        words, random, np.where(random.random(BLOCK) < 0.3, random.lognormal(4.4, 0.7, BLOCK), 0).astype(int)
    )
    responses = texts(words, random, random.lognormal(3.2, 0.9, BLOCK).astype(int) + 1)
    categories = random.choice(CATEGORIES, BLOCK).tolist()
    rows = zip(instructions, contexts, responses, categories, strict=True)
    names = ("instruction", "context", "response", "category")
    lines = [orjson.dumps(dict(zip(names, row, strict=True))) for row in rows]
    for place in random.integers(1, BLOCK, BLOCK // 100).tolist():
        lines[place] = lines[place - 1]
    for place in random.integers(1, BLOCK, BLOCK // 100).tolist():
        lines[place] = lines[place - 1].replace(b" the ", b" that ", 1)
    lines[random.integers(0, BLOCK)] = b'{"instruction": "a line that was cut'
    return lines


def write(path: Path, count: int) -> None:
    words, random = np.array(vocabulary(), dtype=object), np.random.default_rng(7)
    with path.open("wb") as stream:
        for _ in range(count // BLOCK):
            stream.write(b"\n".join(block(words, random)) + b"\n")


def run(*arguments: str) -> tuple[float, float, str]:
    """Seconds, peak resident megabytes of the process, and its last line of output."""
    start = time.perf_counter()
    command = [sys.executable, "-c", "from roslin.cli.main import main; main()", "records", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    output = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6, output.strip().rpartition("\n")[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--tokenizer", default="base")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        write(path, options.count)
        size = path.stat().st_size
        print(
            f"{options.count:,} records, {size:,} bytes ({size / options.count:.0f} each); {os.cpu_count()} cores,",
            end=" ",
        )
        print(f"load {os.getloadavg()[0]:.1f} before the start")
        tokens = ("--tokenizer", options.tokenizer)
        told = f"goal {GOAL_SECONDS} s, {GOAL_MEGABYTES} MB"
        show("all but tokens and near-duplicates", told, run("check", str(path), "--no-near"))
        show("everything", f"goal {GOAL_SECONDS_WITH_ALL} s", run("check", str(path), *tokens))
        show("everything, each record's tokens counted", "", run("check", str(path), *tokens, "--max-length", "64"))
        show("stats", "", run("stats", str(path), *tokens))


def show(name: str, goal: str, measured: tuple[float, float, str]) -> None:
    seconds, megabytes, last = measured
    print(f"{name}: {seconds:.1f} s, peak {megabytes:.0f} MB{f' ({goal})' if goal else ''}\n    {last}", flush=True)


if __name__ == "__main__":
    main()
