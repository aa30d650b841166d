"""Tuning speed on CPU beside transformers' Trainer: real tokens a second on the same records, in one run, alternating.

usage: python bench/cpu_tune.py RECORDS.jsonl [--rounds 3] [--count 192] [--precision bf16 fp32]

The Trainer gets batches of 6 records padded to the longest, accumulated to 48 an update, as Dolly's trainer did; no
gradient checkpointing, which would slow it down. Roslin gets the same records in the same updates, packed. Both update
fp32 weights; in bf16 the Trainer computes under autocast. Only the stepping is timed, after one update of warm-up for
each side.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from roslin import records
from roslin.model import find_model, fit_vocabulary, load_decoder
from roslin.tokens import Example, Tokenizer
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import best_fit, make_pack
from roslin.tune.step import accumulate

BATCH, ACCUMULATION = 6, 8
PER_UPDATE = BATCH * ACCUMULATION
LEARNING_RATE = 1e-4


def examples_of(path: Path, count: int) -> list[Example]:
    tokenizer = Tokenizer.load(find_model("base"))
    tokenizer.add_keys()
    found = tokenizer.examples(records.load([path])[: 2 * count])
    return [example for example in found if len(example.ids) < 2048][:count]


class Roslin:
    """One long-lived model and optimizer; each call steps through the records once."""

    def __init__(self, examples: list[Example], dtype: torch.dtype) -> None:
        tokenizer = Tokenizer.load(find_model("base"))
        new_ids = tokenizer.add_keys()
        self.decoder = load_decoder(find_model("base"))
        fit_vocabulary(self.decoder, tokenizer.size, new_ids, "mean")
        self.decoder.to(dtype)
        self.optimizer = MasterAdamW(self.decoder, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.0)
        self.updates = [examples[i : i + PER_UPDATE] for i in range(0, len(examples), PER_UPDATE)]

    def step(self, update: list[Example]) -> float:
        rows = best_fit([len(example.ids) for example in update], 2048)
        packs = [make_pack([update[i] for i in row]) for row in rows]
        loss = accumulate(self.decoder, packs)
        self.optimizer.update(LEARNING_RATE, 1.0)
        return loss

    def seconds(self) -> float:
        start = time.perf_counter()
        for update in self.updates[1:]:
            self.step(update)
        return time.perf_counter() - start


class StepClock(TrainerCallback):
    """Times a Trainer from the end of its first update to the end of its last."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def collate(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad on the right to a multiple of 8, as Dolly's collator did."""
    longest = max(len(row["input_ids"]) for row in batch)
    length = -(-longest // 8) * 8
    padded = {
        key: [row[key] + [fill] * (length - len(row[key])) for row in batch]
        for key, fill in (("input_ids", 0), ("labels", -100))
    }
    padded["attention_mask"] = [[1] * len(row["input_ids"]) + [0] * (length - len(row["input_ids"])) for row in batch]
    return {key: torch.tensor(rows) for key, rows in padded.items()}


class Peer:
    """A fresh Trainer each call, on the same records in the same order."""

    def __init__(self, examples: list[Example], dtype: torch.dtype) -> None:
        self.rows = [
            {"input_ids": e.ids, "labels": [-100] * e.answer_start + e.ids[e.answer_start :]} for e in examples
        ]
        self.bf16 = dtype == torch.bfloat16

    def seconds(self) -> float:
        model = AutoModelForCausalLM.from_pretrained(find_model("base"), dtype=torch.float32)
        model.resize_token_embeddings(8195)
        clock = StepClock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                gradient_accumulation_steps=ACCUMULATION,
                num_train_epochs=1,
                learning_rate=LEARNING_RATE,
                bf16=self.bf16,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                train_sampling_strategy="sequential",
                dataloader_num_workers=0,
                remove_unused_columns=False,
            )
            Trainer(
                model=model, args=arguments, train_dataset=self.rows, data_collator=collate, callbacks=[clock]
            ).train()
        return clock.ends[-1] - clock.ends[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=192, help="how many records, a multiple of 48")
    parser.add_argument("--precision", nargs="+", default=["bf16", "fp32"], choices=["bf16", "fp32"])
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    examples = examples_of(options.records, options.count)
    timed = examples[PER_UPDATE:]
    real = sum(len(example.ids) for example in timed)
    batches = [timed[i : i + BATCH] for i in range(0, len(timed), BATCH)]
    padded = sum(-(-max(len(e.ids) for e in batch) // 8) * 8 * len(batch) for batch in batches)
    print(
        f"{len(timed)} records timed, {real:,} real tokens, {padded:,} with padding; {torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    for name in options.precision:
        dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[name]
        roslin, peer = Roslin(examples, dtype), Peer(examples, dtype)
        roslin.step(roslin.updates[0])
        ours, theirs = alternate(roslin.seconds, peer.seconds, options.rounds)
        print(
            f"{name}: Roslin {real / ours:,.0f} real tokens/s, Trainer {real / theirs:,.0f} "
            f"(medians of {options.rounds}); ratio {theirs / ours:.2f}"
        )


def alternate(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float]:
    """Median seconds of each, run in turns."""
    times = [(first(), second()) for _ in range(rounds)]
    return statistics.median(t[0] for t in times), statistics.median(t[1] for t in times)


if __name__ == "__main__":
    main()
