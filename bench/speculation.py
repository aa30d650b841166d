"""Answers with and without guessed tokens on a CPU, alternating in one run: closed question answering, extraction and
summarization, which copy from their context, and general questions, which have nothing to copy from.

    python bench/speculation.py RECORDS --model smollm2 [--sample] [--records-each 6] [--new-tokens 96] [--threads 2]
    python bench/speculation.py RECORDS --model MODEL --draft SMALL
    python bench/speculation.py RECORDS --shape 410m --bits 8 [--draft-shape 160m --right 0.8]

RECORDS is databricks-dolly-15k.jsonl, or a file like it. With `--model` the model answers as it will. With `--shape`
random weights of that size compute every pass in full, but are made to say the answer that the record has; the last row
has them say the context over again, which is the most there can be to gain. `--draft` adds a draft model,
`--draft-shape` one of random weights whose guesses are made right with probability `--right`, each time anew.

Each way has one engine for all rows, which learns what guesses are worth as it goes. The last line is all of them
together: what finding that out has cost is in it.

Times are those of the process on all its CPUs, prompts included; on a machine that does nothing else these are the wall
clock's, times the threads. "Tokens a pass" and "kept" (of the guesses computed) are counted by passes. Both ways must
give the same ids.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from random import Random

import torch
from torch import Tensor

from cpu_shape import ROWS, SHAPES, quantised, random_decoder
from roslin.answer import Roslin
from roslin.engine import GREEDY, Completion, Engine, Network, Request, Sampling, fuse
from roslin.engine.speculation import SIZES
from roslin.model import Attend
from roslin.model.find import find_model
from roslin.model.quantised import quantise_8, round_to_4
from roslin.model.quantised_linear import QuantisedEmbedding
from roslin.records import Record, load
from roslin.tokens import Tokenizer

CATEGORIES = ("closed_qa", "information_extraction", "summarization", "general_qa")
CONTEXT = (300, 3000)
"""Characters of the contexts that are taken, where there are any."""
WRONG = ROWS - 1
"""What a draft of random weights says where it is not right: no answer has it."""


class Counted:
    """A network that counts its passes with few tokens, and says what `script` has, if that is set."""

    def __init__(self, network: Network, right: float = 1.0) -> None:
        self.config, self.dtype, self.device = network.config, network.dtype, network.device
        self.passes = self.rows = 0
        self._right, self._chance = right, Random(0)
        self.script: list[int] = []
        """By position: the token that comes behind it."""
        self._network = network
        self._positions_N = torch.empty(0)

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        if len(ids_N) <= SIZES[-1]:
            self.passes += 1
            self.rows += len(ids_N)
        self._positions_N = positions_N
        return self._network.hidden(ids_N, positions_N, attend, places_M)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        logits_NV = self._network.logits(hidden_ND)
        if self.script:
            said = [self._said(place) for place in self._positions_N[-len(hidden_ND) :].tolist()]
            logits_NV[torch.arange(len(said)), said] = 1e4
        return logits_NV

    def _said(self, place: int) -> int:
        return self.script[place] if self._chance.random() < self._right else WRONG


@dataclass(frozen=True)
class Task:
    kind: str
    request: Request
    script: list[int]


@dataclass
class Way:
    """One way to answer, and what it took."""

    engine: Engine
    network: Counted
    draft: Counted | None = None
    seconds: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    tokens: int = 0
    passes: int = 0
    rows: int = 0
    draft_passes: int = 0

    def answer(self, task: Task) -> Completion:
        self.network.passes = self.network.rows = 0
        self.network.script = task.script
        if self.draft is not None:
            self.draft.passes, self.draft.script = 0, task.script
        started = time.process_time()
        [done] = self.engine.run([task.request])
        self.seconds.append(time.process_time() - started)
        drawn = done.timings.tokens - 1  # the first one comes of the prompt
        self.speeds.append(done.timings.tokens / self.seconds[-1])
        self.tokens, self.passes, self.rows = (
            self.tokens + drawn, self.passes + self.network.passes, self.rows + self.network.rows,
        )  # fmt: skip
        self.draft_passes += self.draft.passes if self.draft else 0
        return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--model")
    what.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--bits", type=int, choices=[4, 8, 16], default=8, help="of the random weights")
    draft = parser.add_mutually_exclusive_group()
    draft.add_argument("--draft", help="a smaller model of the same tokenizer, beside --model")
    draft.add_argument("--draft-shape", choices=sorted(SHAPES), help="a draft of random weights, beside --shape")
    parser.add_argument("--right", type=float, default=0.8, help="probability that such a draft's guess is right")
    parser.add_argument("--sample", action="store_true", help="Dolly's sampling (top_p 0.92) instead of greedy")
    parser.add_argument("--records-each", type=int, default=6)
    parser.add_argument("--new-tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if (options.draft and not options.model) or (options.draft_shape and not options.shape):
        parser.error("--draft goes with --model, and --draft-shape with --shape")
    torch.set_num_threads(options.threads)
    records = [record for record in load([options.records]) if record.category in CATEGORIES]
    if options.model:
        roslin = Roslin.load(options.model, draft=options.draft)
        network, vocabulary, small = roslin.decoder, roslin.tokenizer.size, roslin.draft
        tasks = answered(roslin, records, options)
    else:
        network, vocabulary = of_shape(options.shape, options.bits), ROWS
        small = of_shape(options.draft_shape, options.bits) if options.draft_shape else None
        tasks = recited(records, options)
    counted, draft = Counted(network), Counted(small, options.right) if small else None
    heads = "task | answers | tokens/s without | with | ratio (least, most) | tokens a pass | guesses kept"
    print(f"| {heads} | draft's passes |")
    print("|---|---|---|---|---|---|---|---|")
    plain, guessing = Engine(counted, vocabulary, 1, speculate=False), Engine(counted, vocabulary, 1, draft=draft)
    taken = [0.0, 0.0]
    for kind, own in groupby(tasks, attrgetter("kind")):
        ways = [Way(plain, counted), Way(guessing, counted, draft)]
        for number, task in enumerate(list(own) * options.rounds):
            order = ways if number % 2 else ways[::-1]
            one, other = (way.answer(task) for way in order)
            assert one.ids == other.ids, "with guesses it must say the same"
        print_row(kind, *ways)
        taken = [all_of_it + sum(way.seconds) for all_of_it, way in zip(taken, ways, strict=True)]
    print(f"all: {taken[0]:.1f} s without, {taken[1]:.1f} s with: {taken[0] / taken[1]:.3f} times as fast")


def print_row(kind: str, without: Way, guessing: Way) -> None:
    ratios = [one / other for one, other in zip(without.seconds, guessing.seconds, strict=True)]
    medians = [statistics.median(way.speeds) for way in (without, guessing)]
    wrong = guessing.rows - guessing.passes
    kept = f"{(guessing.tokens - guessing.passes) / wrong:.0%} of {wrong}" if wrong else "none made"
    print(
        f"| {kind} | {len(ratios)} | {medians[0]:.1f} | {medians[1]:.1f} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}, {max(ratios):.2f}) | {guessing.tokens / guessing.passes:.2f} | {kept} | "
        f"{guessing.draft_passes} |",
        flush=True,
    )


def answered(roslin: Roslin, records: Sequence[Record], options: argparse.Namespace) -> list[Task]:
    """What the model itself has to say."""
    tasks = []
    for kind, record in chosen(records, options.records_each):
        ids = roslin.prompts.ids(record.instruction, record.context)
        sampling = Sampling(seed=len(tasks)) if options.sample else GREEDY
        tasks.append(Task(kind, Request(ids, options.new_tokens, sampling, roslin.prompts.stop_ids), []))
    return tasks


def recited(records: Sequence[Record], options: argparse.Namespace) -> list[Task]:
    """The records' own answers, and a context over again."""
    tokenizer = Tokenizer.load(find_model("base"))
    tasks, copies = [], []
    for kind, record in chosen(records, options.records_each):
        ids = tokenizer.prompt_ids(record.instruction, record.context)
        texts = [(kind, record.response, tasks), ("context again", record.context, copies)]
        for kind_of, text, its in texts if record.context else texts[:1]:
            said = tokenizer.encode(text)[: options.new_tokens]
            script = [0] * (len(ids) - 1) + said + [0] * 2 * SIZES[-1]
            its.append(Task(kind_of, Request(ids, len(said), GREEDY), script))
    return [*tasks, *copies[: options.records_each]]


def chosen(records: Sequence[Record], each: int) -> list[tuple[str, Record]]:
    found = []
    for kind in CATEGORIES:
        own = [record for record in records if record.category == kind]
        fitting = (r for r in own if kind == "general_qa" or CONTEXT[0] <= len(r.context) <= CONTEXT[1])
        found += [(kind, record) for record, _ in zip(fitting, range(each), strict=False)]
    return found


@torch.no_grad()
def of_shape(shape: str, bits: int) -> Network:
    decoder = random_decoder(*SHAPES[shape])
    if bits < 16:
        quantise = quantise_8 if bits == 8 else round_to_4
        for block in decoder.blocks:
            for part in ("qkv", "out", "up", "down"):
                setattr(block, part, quantised(getattr(block, part), quantise))
        decoder.head = quantised(decoder.head, quantise_8)
        decoder.embedding = QuantisedEmbedding(quantise_8(decoder.embedding.weight), lambda: decoder.dtype)
    return fuse(decoder)


if __name__ == "__main__":
    main()
