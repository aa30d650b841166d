"""Full fine-tuning on one GPU: Roslin beside transformers, at full size with random weights and dolly-15k's lengths.

    python bench/gpu_tune.py                                    all parts, Pythia 6.9B's shapes, one 80 GB GPU
    python bench/gpu_tune.py --parts roslin --shape 12b --moments 8bit --in-backward --recompute 36

Parts: `roslin` (real tokens a second, MFU, peak memory, and where an update's time goes), `fp8` (the same with 8-bit
products), `dolly` (transformers as Dolly's trainer ran it: padded batches, every layer checkpointed), `best`
(transformers at its best: packed rows, compiled layers) and, with the last, agreement of the losses on the same rows.
Real tokens are those of records; padding is none. MFU counts 6 operations for every number of the layers' matrices and
the head and every token, without recomputation.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import math
import os
import statistics
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch

from roslin.memory import GIB
from roslin.model import Decoder, ModelConfig
from roslin.tokens import Example
from roslin.tune.ahead import made_ahead
from roslin.tune.course import Course
from roslin.tune.log import peak_flops
from roslin.tune.optimizer import MasterAdamW
from roslin.tune.packing import Pack, join_rows, make_pack
from roslin.tune.passes import Products, speed_up
from roslin.tune.recipe import Recipe
from roslin.tune.step import accumulate

LENGTHS = Path(__file__).with_name("dolly_15k_lengths.csv")
SHAPES = {
    "tiny": (64, 2, 4),
    "160m": (768, 12, 12),
    "2.8b": (2560, 32, 32),
    "6.9b": (4096, 32, 32),
    "12b": (5120, 36, 40),
}
"""Width, layers and heads of the Pythia suite."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def config_of(shape: str) -> ModelConfig:
    width, layers, heads = SHAPES[shape]
    return ModelConfig.from_hf(
        {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": 4 * width,
            "vocab_size": 50432,
            "max_position_embeddings": 2048,
            "rotary_pct": 0.25,
            "rotary_emb_base": 10000,
            "hidden_act": "gelu",
            "use_parallel_residual": True,
            "layer_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 0,
        }
    )


def random_decoder(config: ModelConfig) -> Decoder:
    """The same weights each time: matrices normal with a deviation of 0.02, norms the identity."""
    with torch.device("meta"):
        decoder = Decoder(config).to(torch.bfloat16)
    decoder.to_empty(device=DEVICE)
    generator = torch.Generator(DEVICE).manual_seed(0)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.02, generator=generator)
            else:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return decoder


def real_updates(count: int, seed: int = 42) -> list[list[list[Example]]]:
    """The first updates of Dolly's recipe: rows of examples with dolly-15k's lengths and random ids."""
    with LENGTHS.open() as file:
        lengths = [(int(row["prompt"]), int(row["whole"])) for row in csv.DictReader(file)]
    kept = [(prompt, whole) for prompt, whole in lengths if whole < 2048]
    recipe = Recipe.parse({"model": "base", "records": ["-"], "output": "-", "seed": seed})
    course = Course(recipe, [whole for _, whole in kept])
    generator = torch.Generator().manual_seed(seed)
    updates = []
    for rows, _ in zip(course.after(0), range(count), strict=False):
        updates.append(
            [
                [Example(torch.randint(3, 50000, (kept[i][1],), generator=generator).tolist(), kept[i][0]) for i in row]
                for row in rows
            ]
        )
    return updates


@dataclass
class Result:
    name: str
    tokens: int
    """Real tokens of the measured updates."""
    seconds: list[float]
    """Of each measured update."""
    peak_gib: float
    losses: list[float]
    note: str = ""

    def rate(self) -> float:
        return self.tokens / sum(self.seconds)

    def line(self, config: ModelConfig) -> str:
        work = 6 * (config.parameter_count - config.vocab_rows * config.width)
        peak = peak_flops(DEVICE)
        mfu = f"{self.rate() * work / peak:6.1%}" if peak else "     –"
        median = statistics.median(self.seconds)
        return (
            f"{self.name:34s} {self.rate():9,.0f} tokens/s  MFU {mfu}  {self.peak_gib:5.1f} GiB  "
            f"{median * 1e3:7.0f} ms an update (median of {len(self.seconds)})  loss {self.losses[-1]:.4f}  {self.note}"
        )


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def peak_gib() -> float:
    return torch.cuda.max_memory_allocated() / GIB if DEVICE.type == "cuda" else 0.0


def clear() -> None:
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def roslin(config: ModelConfig, updates: list[list[list[Example]]], asked: argparse.Namespace, *, fp8: bool) -> Result:
    """Real updates through the very functions that `roslin tune` runs: the first `asked.warmup` are not timed."""
    clear()
    products: Products | None = None
    if fp8:
        from roslin.tune.passes.fp8 import Fp8Products

        products = Fp8Products(DEVICE)
    decoder = random_decoder(config)
    speed_up(decoder, products=products, recomputed_layers=asked.recompute)
    optimizer = MasterAdamW(
        decoder,
        betas=(0.9, 0.999),
        epsilon=1e-8,
        weight_decay=0.0,
        moments=asked.moments,
        gradients="bf16",
        in_backward=asked.in_backward,
    )
    seconds, losses, tokens = [], [], 0

    def packs_of(rows: list[list[Example]]) -> list[Pack]:
        examples = [example for row in rows for example in row]
        places = iter(range(len(examples)))
        in_rows = [[next(places) for _ in row] for row in rows]
        joined = join_rows(in_rows, [len(example.ids) for example in examples], asked.tokens_per_pass)
        return [make_pack([examples[i] for i in one]) for one in joined]

    synchronize()
    started = time.perf_counter()
    for number, (_, packs) in enumerate(made_ahead(updates, packs_of)):
        if asked.in_backward:
            optimizer.begin(5e-6)
        loss = accumulate(decoder, packs, sum(pack.answer_count for pack in packs))
        norm = optimizer.update(5e-6, None if asked.in_backward else 1.0)
        losses.append(float(loss))
        assert math.isfinite(norm), "a gradient is not finite"
        now = time.perf_counter()
        if number >= asked.warmup:
            seconds.append(now - started)
            tokens += sum(pack.token_count for pack in packs)
        elif number == asked.warmup - 1 and DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = now
    if asked.profile:
        profile(decoder, optimizer, updates[-1], asked)
    note = f"{asked.moments} moments{', in backward' if asked.in_backward else ''}, {asked.recompute} layers run again"
    name = f"Roslin, {'fp8' if fp8 else 'bf16'}"
    return Result(name, tokens, seconds, peak_gib(), losses, note)


def profile(decoder: Decoder, optimizer: MasterAdamW, rows: list[list[Example]], asked: argparse.Namespace) -> None:
    """Where the GPU's time of one update goes, kernel by kernel."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    pack = make_pack([example for row in rows for example in row])
    with watch(activities=[ProfilerActivity.CUDA]) as found:
        if asked.in_backward:
            optimizer.begin(5e-6)
        accumulate(decoder, [pack], pack.answer_count)
        optimizer.update(5e-6, None if asked.in_backward else 1.0)
        synchronize()
    times: dict[str, list[float]] = {}
    for event in found.events():
        if event.device_time_total > 0:
            times.setdefault(event.name[:70], []).append(event.device_time_total / 1e3)
    whole = sum(map(sum, times.values()))
    print(f"  one update of {pack.token_count} tokens, {whole:.1f} ms of kernels:")
    for name, parts in sorted(times.items(), key=lambda item: -sum(item[1]))[:26]:
        print(f"    {sum(parts):7.1f} ms {sum(parts) / whole:5.1%}  {len(parts):5d} x {name}")


def hf_config(config: ModelConfig) -> object:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(
        vocab_size=config.vocab_rows,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.inner,
        max_position_embeddings=2048,
        rotary_pct=0.25,
        use_parallel_residual=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        use_cache=False,
        attn_implementation="sdpa",
    )


def hf_model(config: ModelConfig) -> torch.nn.Module:
    """transformers' GPT-NeoX with the weights of `random_decoder`."""
    from transformers import GPTNeoXForCausalLM

    with torch.device("meta"):
        model = GPTNeoXForCausalLM(hf_config(config)).to(torch.bfloat16)
    weights = dict(random_decoder(config).named_parameters())
    model.to_empty(device=DEVICE)
    inverse = 1.0 / (10000 ** (torch.arange(0, config.rotary_dims, 2, device=DEVICE).float() / config.rotary_dims))
    for name, buffer in model.named_buffers():
        if "inv_freq" in name:
            buffer.copy_(inverse)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(theirs(name, weights, config))
    return model


def theirs(name: str, weights: dict[str, torch.nn.Parameter], config: ModelConfig) -> torch.Tensor:
    """The weight that transformers has under a name; its queries, keys and values lie head by head."""
    ours = (
        name.replace("gpt_neox.layers", "blocks")
        .replace("attention.query_key_value", "qkv")
        .replace("attention.dense", "out")
        .replace("mlp.dense_h_to_4h", "up")
        .replace("mlp.dense_4h_to_h", "down")
        .replace("input_layernorm", "norm1")
        .replace("post_attention_layernorm", "norm2")
        .replace("gpt_neox.final_layer_norm", "norm")
        .replace("gpt_neox.embed_in", "embedding")
        .replace("embed_out", "head")
        .replace("lm_head", "head")
    )
    weight = weights[ours].detach()
    if ".qkv." in ours:
        rest = weight.shape[1:]
        weight = weight.view(3, config.heads, config.head_dim, *rest).transpose(0, 1).reshape(-1, *rest)
    return weight


def padded(examples: list[Example]) -> tuple[dict[str, torch.Tensor], int]:
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        mask[row, : len(example.ids)] = 1
        labels[row, example.answer_start : len(example.ids)] = torch.tensor(example.ids[example.answer_start :])
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(DEVICE) for name, tensor in batch.items()}, sum(len(e.ids) for e in examples)


def packed_row(examples: list[Example], length: int) -> dict[str, torch.Tensor]:
    """A row of packed examples as transformers knows it: positions that start anew, and no mask."""
    ids, labels, positions = [], [], []
    for example in examples:
        ids += example.ids
        labels += [-100] * example.answer_start + example.ids[example.answer_start :]
        positions += range(len(example.ids))
    rest = length - len(ids)
    row = {"input_ids": ids + [0] * rest, "labels": labels + [-100] * rest, "position_ids": positions + [0] * rest}
    return {name: torch.tensor(values) for name, values in row.items()}


def dolly_trainer(config: ModelConfig, updates: list[list[list[Example]]], asked: argparse.Namespace) -> Result:
    """As Dolly's trainer: batches of six padded records, eight an update, every layer checkpointed, AdamW in bf16."""
    clear()
    model = hf_model(config)
    model.gradient_checkpointing_enable()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, fused=True)
    seconds, losses, tokens = [], [], 0
    for number, rows in enumerate(updates[: asked.peer_updates + 1]):
        examples = [example for row in rows for example in row]
        synchronize()
        started = time.perf_counter()
        answers = sum(example.answer_count for example in examples)
        total = torch.zeros((), device=DEVICE)
        for start in range(0, len(examples), 6):
            batch, _ = padded(examples[start : start + 6])
            part = sum(example.answer_count for example in examples[start : start + 6]) / answers
            loss = model(**batch).loss * part
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()
        losses.append(float(total))
        if number:
            seconds.append(time.perf_counter() - started)
            tokens += sum(len(example.ids) for example in examples)
    return Result("transformers as Dolly's trainer", tokens, seconds, peak_gib(), losses, "batches of 6, bf16 AdamW")


def best_transformers(config: ModelConfig, updates: list[list[list[Example]]], asked: argparse.Namespace) -> Result:
    """At its best: rows of 2,048 packed, two a pass, layers compiled, nothing checkpointed, AdamW in bf16."""
    clear()
    model = hf_model(config)
    model.train()
    for layer in model.gpt_neox.layers:
        layer.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-6, fused=True)
    seconds, losses, tokens = [], [], 0
    for number, rows in enumerate(updates):
        synchronize()
        started = time.perf_counter()
        answers = sum(example.answer_count for row in rows for example in row)
        total = torch.zeros((), device=DEVICE)
        filled = [*rows, []] if len(rows) % 2 else rows
        for start in range(0, len(filled), 2):
            found = [packed_row(row, 2048) for row in filled[start : start + 2]]
            batch = {name: torch.stack([row[name] for row in found]).to(DEVICE) for name in found[0]}
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits
            labels = batch["labels"][:, 1:].flatten()
            wanted = labels >= 0
            picked = logits[:, :-1].flatten(0, 1)[wanted]
            loss = torch.nn.functional.cross_entropy(picked.float(), labels[wanted], reduction="sum") / answers
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()
        losses.append(float(total))
        if number >= asked.warmup:
            seconds.append(time.perf_counter() - started)
            tokens += sum(len(example.ids) for row in rows for example in row)
    return Result("transformers, packed and compiled", tokens, seconds, peak_gib(), losses, "2 x 2,048, bf16 AdamW")


def agreement(ours: Result, its: Result) -> str:
    pairs = list(zip(ours.losses, its.losses, strict=False))
    apart = max(abs(a - b) / b for a, b in pairs)
    return f"losses of {len(pairs)} updates on the same rows: at most {apart:.3%} apart ({pairs[0]} … {pairs[-1]})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="roslin,fp8,dolly,best")
    parser.add_argument("--shape", default="6.9b", choices=SHAPES)
    parser.add_argument("--updates", type=int, default=20, help="updates in all, those before timing among them")
    parser.add_argument("--warmup", type=int, default=2, help="updates that are not timed")
    parser.add_argument("--peer-updates", type=int, default=2, help="timed updates of the slow peer")
    parser.add_argument("--moments", default="8bit", choices=("fp32", "bf16", "8bit"))
    parser.add_argument("--in-backward", action="store_true")
    parser.add_argument("--recompute", type=int, default=0, help="layers that are run again in the backward pass")
    parser.add_argument("--tokens-per-pass", type=int, default=16384)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path, help="file for the results as JSON")
    asked = parser.parse_args()
    config = config_of(asked.shape)
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU"
    updates = real_updates(asked.updates)
    print(f"{name}, torch {torch.__version__}; {config.parameter_count / 1e9:.2f} B parameters", flush=True)
    runs = {
        "roslin": lambda: roslin(config, updates, asked, fp8=False),
        "fp8": lambda: roslin(config, updates, asked, fp8=True),
        "dolly": lambda: dolly_trainer(config, updates, asked),
        "best": lambda: best_transformers(config, updates, asked),
    }
    results: dict[str, Result] = {}
    for part in asked.parts.split(","):
        started = time.perf_counter()
        try:
            results[part] = runs[part]()
            print(results[part].line(config), f"({time.perf_counter() - started:.0f} s)", flush=True)
        except Exception:
            print(f"{part} failed:", traceback.format_exc(limit=-4), flush=True)
        clear()
    for peer in ("fp8", "best"):
        if "roslin" in results and peer in results:
            print(f"Roslin bf16 and {results[peer].name}: {agreement(results['roslin'], results[peer])}")
    if asked.out:
        asked.out.write_text(json.dumps({part: vars(result) for part, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
