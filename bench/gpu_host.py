"""What the host does for each step of answering on a GPU, measured without one.

    python bench/gpu_host.py            streams from 1 to 1,024: milliseconds of a core a step
    python bench/gpu_host.py --profile  also by function, at 1,024

The engine as it runs on a GPU, with CUDA graphs and a pass begun ahead, but nothing is computed: every token is id 1.
What is left is the host's own work, without launches and copies to the GPU (a graph is one launch; a pass with prompts
is some hundreds). A GPU waits for nothing as long as a step takes it longer than this. Beside a prompt: passes in which
one more prompt is read. Times are of the thread, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch

from gpu_shared import config_of
from roslin.engine import GREEDY, Engine, Request, Sampling
from roslin.engine.blocks import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from roslin.model import Attend, ModelConfig

VOCABULARY = 50280
PROMPT, NEW, STEPS, PROMPTS = 90, 500, 60, 20
STREAMS = (1, 32, 256, 1024)


class Nothing:
    """A network that computes nothing."""

    dtype, device = torch.bfloat16, torch.device("cpu")

    def __init__(self) -> None:
        self.config: ModelConfig = replace(config_of("tiny"), positions=2048)

    def hidden(self, ids_N: Tensor, positions_N: Tensor, attend: Attend, places_M: Tensor | None = None) -> Tensor:
        return torch.zeros(len(ids_N), 1)

    def logits(self, hidden_ND: Tensor) -> Tensor:
        return torch.zeros(len(hidden_ND), 1)


def ones(logits: Tensor, vocabulary: int, draws: Any, ids_B: Tensor, logprobs_B: Tensor) -> None:
    ids_B.fill_(1)
    logprobs_B.zero_()


def computed(graphs: Any, *kind: Any) -> None:
    ones(graphs._logits_BV, VOCABULARY, None, graphs._ids_B, graphs._logprobs_B)


def begun(resident: Any, slots_N: Tensor, positions_N: Tensor, known_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return known_N, positions_N, positions_N


def request(number: int, *, sampled: bool) -> Request:
    """Prompts differ, so that nobody shares anything."""
    prompt = [2 + number, *range(7, 6 + PROMPT)]
    return Request(prompt, NEW, Sampling(seed=number) if sampled else GREEDY, frozenset({50277, 0}))


def milliseconds(engine: Engine, steps: int) -> Iterator[float]:
    for _ in range(steps):
        started = time.thread_time()
        engine.step()
        yield (time.thread_time() - started) * 1e3


def beside_prompts(engine: Engine, streams: int, *, sampled: bool) -> Iterator[float]:
    for number in range(PROMPTS):
        engine.submit(request(streams + number, sampled=sampled))
        yield from milliseconds(engine, 1)


def measure(streams: int, *, sampled: bool, profiled: bool = False) -> None:
    room = (streams + PROMPTS) * (PROMPT + NEW + BLOCK)
    engine = Engine(
        Nothing(), VOCABULARY, streams + PROMPTS, weights_stay=True, graphs=True, ahead=True, cache_tokens=room
    )
    engine.submit_all([request(number, sampled=sampled) for number in range(streams)])
    while engine.prompts_left:
        engine.step()
    engine.step()
    profile = cProfile.Profile()
    if profiled:
        profile.enable()
    answering = list(milliseconds(engine, STEPS))
    profile.disable()
    mixed = list(beside_prompts(engine, streams, sampled=sampled))
    name = "drawn" if sampled else "greedy"
    print(
        f"{streams:5d} streams, {name:6s}: {statistics.median(answering):6.2f} ms a step (longest "
        f"{max(answering):6.2f}), beside a prompt {statistics.median(mixed):6.2f} ms",
        flush=True,
    )
    if profiled:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with (
        patch("roslin.engine.engine.has_kernels", lambda device: True),
        patch("roslin.engine.graphs.Graphs._compute", computed),
        patch("roslin.engine.gpu.choice.choose", ones),
        patch("roslin.engine.gpu.ends.begin", begun),
        patch("roslin.engine.gpu.ends.keep", lambda *told: None),
    ):
        for streams in STREAMS:
            for sampled in (False, True):
                measure(streams, sampled=sampled)
        if asked.profile:
            measure(STREAMS[-1], sampled=False, profiled=True)


if __name__ == "__main__":
    main()
