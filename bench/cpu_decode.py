"""Decoding on a CPU: Roslin's engine beside transformers' generate, on the shipped base, alternating in one run.

    python bench/cpu_decode.py [--model base] [--rounds 7] [--threads 2] [--new-tokens 128] [--prompt-tokens 60]

`--model smollm2` measures a model of the llama family, of 135 million parameters; `--shape 2.8b` random weights of a
size, in int8, fp8 and int4, beside transformers and CTranslate2.

Each row measures both sides in turn, `rounds` times, and prints medians. Both run the same dtype (in int8, fp8 and
int4, which transformers has no fast way for on a CPU, it runs bfloat16), the same prompts and as many new tokens
(neither may stop early). Roslin guesses no tokens here: prompts of random ids lead to answers that repeat themselves,
which guessing would speed up beyond what a user sees (speculation.py measures that). "first token" is a request for
one new token. GB/s counts the weights read in each step of the batch (all but the embedding): what bounds one stream.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from cpu_shape import SHAPES, in_few_bits, measure_shape
from roslin.engine import GREEDY, Engine, Network, Request, Sampling, fuse
from roslin.model import Decoder, find_model, load_decoder, save_decoder
from roslin.model.quantised import quantise_8, quantise_fp8, round_to_4

FEW_BITS = {"int8": (quantise_8, 1.0), "fp8": (quantise_fp8, 1.0), "int4": (round_to_4, 4.5 / 8)}
FORMS = {"float32": torch.float32, "bfloat16": torch.bfloat16} | dict.fromkeys(FEW_BITS, torch.bfloat16)
"""By name, and what transformers runs beside it."""
DOLLY = {"do_sample": True, "temperature": 1.0, "top_p": 0.92, "top_k": 0}


@dataclass(frozen=True)
class Case:
    name: str
    batch: int
    new_tokens: int
    sampled: bool


@dataclass(frozen=True)
class Row:
    form: str
    case: Case
    roslin: float
    peer: float

    @property
    def ratio(self) -> float:
        return self.peer / self.roslin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="base")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=60)
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this size, in few bits (cpu_shape.py)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if options.shape:
        measure_shape(options)
        return
    cases = [
        Case("single stream, greedy", 1, options.new_tokens, sampled=False),
        Case("single stream, Dolly's sampling", 1, options.new_tokens, sampled=True),
        Case("batch of 16, greedy", 16, options.new_tokens, sampled=False),
        Case("batch of 16, Dolly's sampling", 16, options.new_tokens, sampled=True),
        Case("first token", 1, 1, sampled=False),
    ]
    print_head(options)
    model = find_model(options.model)
    for form, dtype in FORMS.items():
        decoder = load_decoder(model, dtype=dtype)
        read = weights(decoder)
        peer = load_peer(model, decoder)
        if form in FEW_BITS:
            read = in_few_bits(decoder, *FEW_BITS[form])
        network = fuse(decoder)
        for case in cases:
            print_row(measure(case, form, network, peer, options.rounds, options.prompt_tokens), read)


def load_peer(model: Path, decoder: Decoder) -> transformers.PreTrainedModel:
    """The same model as transformers runs it; of a GGUF file by way of a folder, so that it too is unpacked."""
    with tempfile.TemporaryDirectory() as spare:
        folder = model
        if not model.is_dir():
            folder = Path(spare)
            save_decoder(decoder, folder)
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=decoder.dtype).eval()


def measure(
    case: Case, form: str, network: Network, peer: transformers.PreTrainedModel, rounds: int, prompt: int
) -> Row:
    torch.manual_seed(0)
    vocabulary = network.config.vocab_rows
    ids_BT = torch.randint(1, vocabulary, (case.batch, prompt))
    engine = Engine(network, vocabulary, speculate=False)
    mine, theirs = [], []
    for _ in range(rounds + 1):
        mine.append(seconds(lambda: run_roslin(engine, case, ids_BT)))
        theirs.append(seconds(lambda: run_peer(peer, case, ids_BT)))
    # The first round warms both up.
    return Row(form, case, statistics.median(mine[1:]), statistics.median(theirs[1:]))


def run_roslin(engine: Engine, case: Case, ids_BT: torch.Tensor) -> None:
    sampling = Sampling(seed=0) if case.sampled else GREEDY
    done = engine.run([Request(ids, case.new_tokens, sampling) for ids in ids_BT.tolist()])
    assert sum(len(c.ids) for c in done) == case.batch * case.new_tokens


def run_peer(peer: transformers.PreTrainedModel, case: Case, ids_BT: torch.Tensor) -> None:
    how = DOLLY if case.sampled else {"do_sample": False}
    out_BT = peer.generate(
        ids_BT,
        attention_mask=torch.ones_like(ids_BT),
        max_new_tokens=case.new_tokens,
        min_new_tokens=case.new_tokens,
        pad_token_id=0,
        **how,
    )
    assert out_BT.shape[1] == ids_BT.shape[1] + case.new_tokens


def seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def weights(decoder: Decoder) -> int:
    """Bytes of the weights that every step reads."""
    total = sum(p.numel() * p.element_size() for p in decoder.parameters())
    if decoder.config.tied_head:
        return total
    return total - decoder.embedding.weight.numel() * decoder.dtype.itemsize


def print_head(options: argparse.Namespace) -> None:
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {options.threads} threads,",
        end=" ",
    )
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, model {options.model}:", end=" ")
    print(f"prompt {options.prompt_tokens}, new {options.new_tokens}, medians of {options.rounds}\n")
    print("| dtype | case | Roslin | transformers | ratio | Roslin GB/s |\n|---|---|---|---|---|---|")


def print_row(row: Row, weight_bytes: int) -> None:
    tokens = row.case.batch * row.case.new_tokens
    if row.case.new_tokens == 1:
        mine, theirs = f"{row.roslin * 1e3:.1f} ms", f"{row.peer * 1e3:.1f} ms"
    else:
        mine, theirs = f"{tokens / row.roslin:.0f} tokens/s", f"{tokens / row.peer:.0f} tokens/s"
    speed = weight_bytes * row.case.new_tokens / row.roslin / 1e9
    print(f"| {row.form} | {row.case.name} | {mine} | {theirs} | {row.ratio:.2f} | {speed:.1f} |", flush=True)


if __name__ == "__main__":
    main()
