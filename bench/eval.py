"""The benchmark table: Roslin beside the LM Evaluation Harness (lm_eval, HFLM), from start to table.

    python bench/eval.py --data FOLDER [--tasks a,b …] [--limit N] [--dtype float32|bfloat16] [--threads 2]
                         [--batch 4,8,16,32,64] [--device cpu|cuda] [--shape 6.9b --tokenizer FILE] [--rounds 1]
                         [--rows 10042]

Each side runs in a fresh process with the same model, questions, dtype and threads. FOLDER holds the tasks' files
(`arc_easy_test.jsonl`, …). Where it has none of hellaswag, rows of hellaswag's form and lengths stand in for it: words
of boolq's passages in as many tokens as hellaswag has (50 in a context and 28 in an ending, of GPT-NeoX's tokenizer).
With fewer of these `--rows` than hellaswag's 10,042, its seconds count as many times over in the total of all seven.

The harness runs with the batch size of `--batch` that is fastest for the first 64 questions of each task. "from start"
is from the start of the process to its end: imports, loading, data, requests, scores. A task's seconds are without
imports and loading. With `--shape`, a random model of Pythia's shape is made by transformers first.

Every log-likelihood of both is compared, and acc and acc_norm: "apart" is the largest difference, in nats.
`--limit` takes the first N questions a task.
"""

import argparse
import json
import os
import platform
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
SIDES = ("roslin", "harness")
METRICS = ("acc", "acc_norm")
TASKS = ("openbookqa", "arc_easy", "winogrande", "hellaswag", "arc_challenge", "piqa", "boolq")
HELLASWAG_ROWS = 10_042
SHORT_SHARE = 0.32
"""Of hellaswag, captions of films; the rest is longer advice."""
SHORT, LONG = (22, 12), (45, 26)
"""Mean words of a context and of an ending."""
SPREAD = 0.35
TRIAL = 64
SHAPES = {"160m": (768, 12, 12), "2.8b": (2560, 32, 32), "6.9b": (4096, 32, 32)}


@dataclass(frozen=True)
class Side:
    """What one process found."""

    seconds: float
    by_task: dict[str, float]
    accuracy: dict[str, dict[str, float]]
    """By task and metric."""
    log_likelihoods: dict[str, list[list[float]]]
    """By task, question and choice."""


def main() -> None:
    options = read_options()
    if options.side:
        print("\n" + json.dumps(asdict(run_side(options))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        options.data = with_hellaswag(Path(options.data), Path(scratch), options.rows)
        options.model = options.model or made(options, Path(scratch))
        best = best_batch(options)
        print_head(options, best)
        found: dict[str, list[Side]] = {side: [] for side in SIDES}
        for number in range(options.rounds):
            for side in SIDES if number % 2 else reversed(SIDES):
                found[side].append(in_process(side, options, best))
        print_table(found, HELLASWAG_ROWS / options.rows)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", default="4,8,16,32,64")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--tokenizer")
    parser.add_argument("--model", help="a model's folder, instead of the small base")
    parser.add_argument("--rows", type=int, default=HELLASWAG_ROWS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def made(options: argparse.Namespace, scratch: Path) -> str:
    """The small base, or a random model of a shape."""
    if not options.shape:
        return str(ROOT / "src" / "roslin" / "assets" / "base")
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    width, layers, heads = SHAPES[options.shape]
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    config = GPTNeoXConfig(**sizes, intermediate_size=4 * width, vocab_size=50432, max_position_embeddings=2048)
    torch.manual_seed(0)
    with torch.device(options.device):
        model = GPTNeoXForCausalLM._from_config(config, dtype=torch.bfloat16)
    folder = scratch / f"random-{options.shape}"
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_file=options.tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    return str(folder)


def with_hellaswag(data: Path, scratch: Path, count: int) -> str:
    """The folder of data, with rows that stand in for hellaswag where it has none."""
    if any(data.glob("hellaswag*")):
        return str(data)
    for path in data.iterdir():
        (scratch / path.name).symlink_to(path.resolve())
    passages = [json.loads(line)["passage"] for line in (data / "boolq_validation.jsonl").read_text().splitlines()]
    words = " ".join(passages).split()
    draw = random.Random(0)
    rows = [json.dumps(hellaswag_row(number, words, draw)) for number in range(count)]
    (scratch / "hellaswag_validation.jsonl").write_text("\n".join(rows) + "\n")
    return str(scratch)


def hellaswag_row(number: int, words: list[str], draw: random.Random) -> dict[str, object]:
    context, ending = SHORT if draw.random() < SHORT_SHARE else LONG

    def some(mean: int) -> str:
        count = max(3, round(draw.gauss(mean, SPREAD * mean)))
        start = draw.randrange(len(words) - count)
        return " ".join(words[start : start + count])

    first, second = some(context * 2 // 3), some(context // 3)
    return {
        "ind": number,
        "activity_label": " ".join(draw.sample(words, 2)),
        "ctx_a": first,
        "ctx_b": second,
        "ctx": f"{first} {second}",
        "endings": [some(ending) for _ in range(4)],
        "label": str(draw.randrange(4)),
    }


def best_batch(options: argparse.Namespace) -> int:
    sizes = [int(size) for size in options.batch.split(",")]
    if len(sizes) == 1:
        return sizes[0]
    trial = argparse.Namespace(**{**vars(options), "limit": TRIAL})
    seconds = {size: sum(in_process("harness", trial, size).by_task.values()) for size in sizes}
    return min(seconds, key=seconds.__getitem__)


def in_process(side: str, options: argparse.Namespace, batch: int) -> Side:
    command = [sys.executable, __file__, "--side", side, "--batch", str(batch), "--data", options.data]
    for name in ("tasks", "dtype", "threads", "device", "model", "limit"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    start = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    seconds = time.perf_counter() - start
    return Side(**json.loads(done.stdout.splitlines()[-1]) | {"seconds": seconds})


def run_side(options: argparse.Namespace) -> Side:
    torch.set_num_threads(options.threads)
    return with_roslin(options) if options.side == "roslin" else with_harness(options)


def with_roslin(options: argparse.Namespace) -> Side:
    import warnings

    from roslin.answer import Roslin
    from roslin.evaluate.benchmark import evaluate
    from roslin.evaluate.scorer import RoslinScorer
    from roslin.evaluate.store import Store
    from roslin.evaluate.tasks import find_tasks
    from roslin.model import find_model
    from roslin.model.fingerprint import fingerprint

    warnings.simplefilter("ignore")
    identity = fingerprint(find_model(options.model))
    model = Roslin.load(options.model, dtype=options.dtype, device=options.device)
    scorer = RoslinScorer(model, name="model", fingerprint=identity)
    side = Side(0.0, {}, {}, {})
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "results.sqlite")
        for task in find_tasks(options.tasks.split(",")):
            start = time.perf_counter()
            found = evaluate(scorer, [task], store, data=Path(options.data), limit=options.limit)
            assert not found.failures, found.failures
            side.by_task[task.name] = time.perf_counter() - start
            side.accuracy[task.name] = {
                metric: {s.name: s for s in store.scores(metric)}["model"].tasks[task.name].accuracy
                for metric in METRICS
            }
            keys = found.scores.tasks[task.name].keys
            with closing(sqlite3.connect(store.path)) as database:
                rows = database.execute(
                    "SELECT question, log_likelihood FROM choice WHERE task = ? ORDER BY 1, choice", (task.name,)
                )
                by_key = {key: [x for _, x in group] for key, group in groupby(rows, key=itemgetter(0))}
            side.log_likelihoods[task.name] = [by_key[key] for key in keys]
    return side


def with_harness(options: argparse.Namespace) -> Side:
    sys.path.insert(0, str(ROOT / "tests"))
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM

    from harness_tasks import AT_HAND, as_on_the_hub, harness_task, read_jsonl

    model = HFLM(pretrained=options.model, dtype=options.dtype, device=options.device, batch_size=int(options.batch))
    side = Side(0.0, {}, {}, {})
    for name in options.tasks.split(","):
        start = time.perf_counter()
        rows = read_jsonl(Path(options.data) / f"{AT_HAND.get(name, 'hellaswag_validation')}.jsonl")
        task = harness_task(name, [as_on_the_hub(name, row) for row in rows[: options.limit]])
        task.set_config("num_fewshot", 0)
        found = evaluate(model, {"tasks": {name: task}, "groups": {}, "group_map": {}}, log_samples=False)["results"][
            name
        ]
        side.by_task[name] = time.perf_counter() - start
        side.accuracy[name] = {metric: found[f"{metric},none"] for metric in METRICS if f"{metric},none" in found}
        by_place = sorted(task.instances, key=lambda request: (request.doc_id, request.idx))
        side.log_likelihoods[name] = [
            [request.resps[0][0] for request in group]
            for _, group in groupby(by_place, key=lambda request: request.doc_id)
        ]
    return side


def print_head(options: argparse.Namespace, batch: int) -> None:
    from importlib.metadata import version

    model = f"random {options.shape}" if options.shape else Path(options.model).name
    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {options.device}, {options.threads} threads,", end=" ")
    print(f"torch {version('torch')}, transformers {version('transformers')}, lm_eval {version('lm_eval')},", end=" ")
    print(f"{model} in {options.dtype}; harness's batch {batch}; medians of {options.rounds}\n", flush=True)


def print_table(found: dict[str, list[Side]], hellaswag_times: float) -> None:
    print("| task | questions | Roslin, s | harness, s | times faster | apart | accuracies |")
    print("|---|---|---|---|---|---|---|")
    mine, theirs = found["roslin"][0], found["harness"][0]
    counts = {name: len(questions) for name, questions in mine.log_likelihoods.items()}
    for name, count in counts.items():
        seconds = ([side.by_task[name] for side in found[which]] for which in SIDES)
        print_row(name, count, *seconds, f"{apart(mine, theirs, name):.1e} | {same(mine, theirs, name)}")
    for label, times in (("all", hellaswag_times), ("all but hellaswag", 0.0)):
        totals = (
            [side.seconds + (times - 1) * side.by_task.get("hellaswag", 0.0) for side in found[which]]
            for which in SIDES
        )
        asked = sum(counts.values()) + round((times - 1) * counts.get("hellaswag", 0))
        print_row(f"{label}, from start", asked, *totals, " | ")


def apart(mine: Side, theirs: Side, task: str) -> float:
    pairs = zip(mine.log_likelihoods[task], theirs.log_likelihoods[task], strict=True)
    return max(abs(m - t) for ours, others in pairs for m, t in zip(ours, others, strict=True))


def same(mine: Side, theirs: Side, task: str) -> str:
    """Whether acc and acc_norm agree, for those that the harness has."""
    wrong = [
        f"{metric} {mine.accuracy[task][metric]:.6f}, harness {value:.6f}"
        for metric, value in theirs.accuracy[task].items()
        if abs(mine.accuracy[task][metric] - value) > 1e-12
    ]
    return "; ".join(wrong) or f"{' and '.join(theirs.accuracy[task])} equal"


def print_row(label: str, questions: int, mine: list[float], theirs: list[float], said: str) -> None:
    ratio = statistics.median(t / m for m, t in zip(mine, theirs, strict=True))
    seconds = f"{statistics.median(mine):.1f} | {statistics.median(theirs):.1f}"
    print(f"| {label} | {questions:,} | {seconds} | {ratio:.2f} | {said} |", flush=True)


if __name__ == "__main__":
    main()
