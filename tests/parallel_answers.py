"""For torchrun in the tests: a model in several processes answers requests; the first prints what came, as JSON.

Arguments: the model's folder, its dtype, the tokenizer's size, and where wanted a signal and a rank: that process gets
the signal when five steps are done.
"""

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch

from roslin.engine import GREEDY, Completion, Engine, Network, Request, Sampling
from roslin.engine.parallel import hold_together
from roslin.errors import RoslinError
from roslin.model import Decoder, ModelConfig, load_config
from roslin.model.share import Share, load_share

CPU = torch.device("cpu")
FLAG = Path(tempfile.gettempdir()) / f"roslin-befalls-{os.environ.get('MASTER_PORT', '')}"
NEW = 72
"""Tokens of an answer."""


def requests(vocabulary: int) -> list[Request]:
    """Greedy and sampled ones, some that begin alike and one with a long prompt, more than run at once."""
    alike = [(7 * place + 3) % vocabulary for place in range(40)]
    drawn = [Sampling(seed=seed, top_p=0.9, temperature=1.1) for seed in (1, 2)]
    whole = Sampling(seed=5, top_p=1.0)
    return [
        Request([5, 6, 7], NEW, GREEDY, top_logprobs=3),
        Request(alike, NEW, GREEDY),
        Request([*alike, 4], NEW, drawn[0]),
        Request([9], NEW, drawn[1], top_logprobs=2),
        Request([*alike, 5, 6], NEW, whole),
        Request([(5 * place + 1) % vocabulary for place in range(290)], 20, GREEDY),
    ]


def answered(decoder: Network, vocabulary: int) -> list[dict[str, Any]]:
    """What came of the requests, of which the third is cancelled amid them, in a cache in which all cannot run."""
    engine = Engine(decoder, vocabulary, max_batch=4, cache_tokens=480, weights_stay=True)
    numbers = engine.submit_all(requests(vocabulary))
    ended: dict[int, Completion] = {}
    steps = 0
    while engine.busy:
        ended |= {event.number: event.completion for event in engine.step() if event.completion}
        steps += 1
        if steps == 5:
            FLAG.touch()
        if steps == 30 and (cancelled := engine.cancel(numbers[2])):
            ended[numbers[2]] = cancelled
    again = engine.run(requests(vocabulary)[:2])  # of which much is still in the cache
    return [told(completion) for completion in [*(ended[number] for number in numbers), *again]]


def told(completion: Completion) -> dict[str, Any]:
    tops = [[list(pair) for pair in top] for top in completion.top_logprobs]
    return {"ids": completion.ids, "logprobs": completion.logprobs, "tops": tops, "reason": completion.finish_reason}


def await_befalling(signal: int, rank: int) -> None:
    def befall() -> None:
        while not FLAG.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal)

    if os.environ["RANK"] == str(rank):
        threading.Thread(target=befall, daemon=True).start()


def main() -> None:
    folder, dtype, vocabulary = Path(sys.argv[1]), getattr(torch, sys.argv[2]), int(sys.argv[3])
    FLAG.unlink(missing_ok=True)

    def load(share: Share, device: torch.device) -> tuple[Decoder, ModelConfig]:
        config = load_config(folder)
        return load_share(folder, config, share, dtype=dtype, device=device), config

    if len(sys.argv) > 4:
        await_befalling(int(sys.argv[4]), int(sys.argv[5]))
    decoder = hold_together(CPU, load, limit=60)
    found = answered(decoder, vocabulary)
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except RoslinError as error:  # as the command does
        if not error.is_told:
            print(f"roslin: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
