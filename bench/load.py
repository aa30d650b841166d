"""Loading a model: Roslin beside transformers, from the same shards to weights that are all in memory.

    python bench/load.py [--shape 1b|2.8b|6.9b] [--family gpt_neox --family gptj --family llama] [--rounds 7]
                         [--cache warm --cache cold] [--device cpu|cuda] [--threads 2] [--folder DIR]

Writes a random bf16 checkpoint of each family's shape by transformers, in three shards or more, into a temporary folder
(or below `--folder`, where it is kept and found again), and loads it `rounds` times by either side, in turn, each time
in a fresh process. `6.9b` needs 14 GB of memory to make and 28 GB to spare on the disk.

Timed is what follows the imports: from the call that loads until a number of every page of every weight has been read,
as either side may leave weights in the files until then. The logits of 16 tokens are compared after that.
"cold": the files are dropped from the system's cache before each process (POSIX_FADV_DONTNEED); "warm": they are in it.
Seconds are medians; the ratio is the median of the rounds' ratios. CPU seconds are user's and system's together, which
others on the machine move less. "peak" is the process's highest resident memory (VmHWM) and "beyond imports" what
loading added to it; "private" is the part of memory at the end that is no file's (RssAnon).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import torch

SHARDS = 3
TOKENS = 16
TOLERANCE = 0.02
"""How far the sums of logits in bf16 may be apart, of the mean magnitude of one."""

NEOX = {"vocab_size": 50304, "max_position_embeddings": 2048, "rotary_pct": 0.25}
GPTJ = {"vocab_size": 50400, "n_positions": 2048, "rotary_dim": 64}
LLAMA = {"max_position_embeddings": 2048}


def neox(width: int, layers: int, heads: int) -> dict[str, object]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**NEOX, **sizes, "intermediate_size": 4 * width}


def gptj(width: int, layers: int, heads: int) -> dict[str, object]:
    return {**GPTJ, "n_embd": width, "n_layer": layers, "n_head": heads}


def llama(width: int, layers: int, heads: int, kv_heads: int, inner: int, rows: int) -> dict[str, object]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**LLAMA, **sizes, "num_key_value_heads": kv_heads, "intermediate_size": inner, "vocab_size": rows}


# Pythia's, GPT-J's (and its like at other sizes), TinyLlama's, Llama 3.2's and Llama 2's.
SHAPES = {
    "1b": {"gpt_neox": neox(2048, 16, 8), "gptj": gptj(2048, 16, 8), "llama": llama(2048, 22, 32, 4, 5632, 32000)},
    "2.8b": {
        "gpt_neox": neox(2560, 32, 32),
        "gptj": gptj(2560, 32, 16),
        "llama": llama(3072, 28, 24, 8, 8192, 128256),
    },
    "6.9b": {
        "gpt_neox": neox(4096, 32, 32),
        "gptj": gptj(4096, 28, 16),
        "llama": llama(4096, 32, 32, 32, 11008, 32000),
    },
}
SIDES = ("roslin", "transformers")
CACHES = ("warm", "cold")


@dataclass(frozen=True)
class Run:
    """One loading, in its own process: seconds and bytes."""

    loaded: float
    """Until the call that loads returned."""
    ready: float
    """Until every weight had been touched."""
    cpu: float
    before: int
    peak: int
    private: int
    logits: float
    magnitude: float


def main() -> None:
    options = read_options()
    if options.side:
        print(json.dumps(asdict(load(options.side, options.folder, options.device, options.threads))))
        return
    print_head(options)
    with tempfile.TemporaryDirectory() as scratch:
        for family in options.family or SHAPES[options.shape]:
            folder = checkpoint(Path(options.folder or scratch), options.shape, family)
            for cache in options.cache or CACHES:
                print_row(family, cache, measure(folder, options, cold=cache == "cold"))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="1b")
    parser.add_argument("--family", action="append", choices=list(SHAPES["1b"]))
    parser.add_argument("--cache", action="append", choices=CACHES)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def checkpoint(root: Path, shape: str, family: str) -> Path:
    """A random model as transformers saves it."""
    folder = root / f"{family}-{shape}"
    if (folder / "model.safetensors.index.json").exists():
        return folder
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPES[shape][family])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    size = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(folder, max_shard_size=min(5_000_000_000, size // SHARDS + 50_000_000))
    return folder


def measure(folder: Path, options: argparse.Namespace, cold: bool) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    warm_up(folder)
    for number in range(options.rounds):
        for side in SIDES if number % 2 else reversed(SIDES):
            if cold:
                drop(folder)
            runs[side].append(in_process(side, folder, options))
    check(runs)
    return runs


def in_process(side: str, folder: Path, options: argparse.Namespace) -> Run:
    command = [sys.executable, __file__, "--side", side, "--folder", str(folder)]
    command += ["--device", options.device, "--threads", str(options.threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(done.stdout))


def warm_up(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            while file.read(2**24):
                pass


def drop(folder: Path) -> None:
    """Have the system forget the files' content. Fails if it does not."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            for _ in range(50):  # pages that a process has just left are not all free at once
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if not is_cached(file):
                    break
                time.sleep(0.1)
            else:
                sys.exit(f"{path} stays in the system's cache: this cannot be measured cold here.")


def is_cached(file: BinaryIO) -> bool:
    """Whether the middle of a file is in the system's cache."""
    try:
        return os.preadv(file.fileno(), [bytearray(1)], os.fstat(file.fileno()).st_size // 2, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def load(side: str, folder: str, device: str, threads: int) -> Run:
    """Load in this process."""
    torch.set_num_threads(threads)
    model_of = with_roslin if side == "roslin" else with_transformers
    start_loading, logits_of = model_of(folder, device)
    before = status("VmHWM")
    cpu, start = time.process_time(), time.perf_counter()
    model = start_loading()
    loaded = time.perf_counter() - start
    with torch.inference_mode():
        assert sum(touch(parameter) for parameter in model.parameters()) > 0
        ready, cpu = time.perf_counter() - start, time.process_time() - cpu
        logits = logits_of(model, torch.arange(TOKENS, device=device)).float()
    sums = logits.sum().item(), logits.abs().sum().item()
    return Run(loaded, ready, cpu, before, status("VmHWM"), status("RssAnon"), *sums)


def touch(parameter: torch.nn.Parameter) -> float:
    """Read a number of each page of 4 KB; on a GPU, wait for all that was copied there."""
    return float(parameter.view(-1)[:: 4096 // parameter.itemsize].abs().sum())


def with_roslin(folder: str, device: str):
    from roslin.model import PackedAttention, load_decoder, packed_positions

    def logits(decoder, ids_N):
        attend = PackedAttention([TOKENS], decoder.config.window)
        return decoder(ids_N, packed_positions([TOKENS], ids_N.device), attend)

    return lambda: load_decoder(Path(folder), device=device), logits


def with_transformers(folder: str, device: str):
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kind = json.loads((Path(folder) / "config.json").read_text())["architectures"][0]
    model_class = getattr(transformers, kind)  # imports the model's own code, which is not what is timed
    where = {} if device == "cpu" else {"device_map": device}

    def start():
        return model_class.from_pretrained(folder, dtype=torch.bfloat16, low_cpu_mem_usage=True, **where)

    return start, lambda model, ids_N: model(ids_N[None]).logits


def status(key: str) -> int:
    """A figure of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key + ":")).split()[1])


def check(runs: dict[str, list[Run]]) -> None:
    """Both sides loaded the same numbers, each time."""
    for mine, theirs in zip(runs["roslin"], runs["transformers"], strict=True):
        assert mine.logits == runs["roslin"][0].logits
        assert abs(mine.magnitude / theirs.magnitude - 1) < TOLERANCE, (mine.magnitude, theirs.magnitude)


def print_head(options: argparse.Namespace) -> None:
    from importlib.metadata import version

    print(f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {options.device}, {options.threads} threads,", end=" ")
    print(f"torch {version('torch')}, transformers {version('transformers')},", end=" ")
    print(f"shape {options.shape} in bf16, medians of {options.rounds}\n")
    print("| family | cache | | Roslin | transformers | ratio |\n|---|---|---|---|---|---|")


def print_row(family: str, cache: str, runs: dict[str, list[Run]]) -> None:
    figures = {
        "seconds until all is in memory": lambda run: run.ready,
        "seconds until the call returns": lambda run: run.loaded,
        "CPU seconds": lambda run: run.cpu,
        "peak memory, GB": lambda run: run.peak / 1e9,
        "peak beyond imports, GB": lambda run: (run.peak - run.before) / 1e9,
        "private memory, GB": lambda run: run.private / 1e9,
    }
    for label, figure in figures.items():
        mine, theirs = ([figure(run) for run in runs[side]] for side in SIDES)
        ratio = statistics.median(m / t for m, t in zip(mine, theirs, strict=True))
        print(
            f"| {family} | {cache} | {label} | {statistics.median(mine):.2f} | {statistics.median(theirs):.2f} | "
            f"{ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
