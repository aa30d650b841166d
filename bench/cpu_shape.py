"""Decoding on a CPU at a size, with random weights: Roslin in int8, fp8 and int4 beside transformers in bfloat16 and
CTranslate2 in int8, alternating in one run.

    python bench/cpu_decode.py --shape 2.8b [--rounds 3] [--threads 2] [--prompt-tokens 128] [--new-tokens 64]

CTranslate2 is measured where it is installed (pip install ctranslate2, or a folder of it on PYTHONPATH). Decoding is
what a request of `new-tokens` takes beyond one of a single token, which is prefill's time. "of the limit" is the share
of the read bandwidth, measured in the same round, at which the weights go by once a token. "logits off by" is the
relative error of the last logits of sixteen tokens, against the same weights in bfloat16 with arithmetic in fp32.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from roslin.engine import GREEDY, Engine, Network, Request, fuse
from roslin.model import Decoder, ModelConfig, PackedAttention, load_decoder, packed_positions, save_decoder
from roslin.model.find import find_model
from roslin.model.quantised import QuantisedWeight, quantise_8, quantise_fp8, round_to_4
from roslin.model.quantised_linear import QuantisedEmbedding, QuantisedLinear
from roslin.tokens import Tokenizer

SHAPES = {"160m": (768, 12, 12), "410m": (1024, 24, 16), "1.4b": (2048, 24, 16), "2.8b": (2560, 32, 32)}
"""Width, layers and heads of Pythia's sizes."""
ROWS = 50304
CHECKED = 16


@dataclass
class System:
    name: str
    run: Callable[[list[int], int], None]
    """Go on from ids by so many tokens."""
    weight_bytes: int
    logits: Callable[[list[int]], Tensor] | None = None
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)


def measure_shape(options: argparse.Namespace) -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as spare, torch.inference_mode():
        folder = Path(spare) / "model"
        folder.mkdir()
        made = random_decoder(*SHAPES[options.shape])
        save_decoder(made, folder)
        Tokenizer.load(find_model("base")).save(folder)
        del made
        ids = torch.randint(5, 8000, (options.prompt_tokens,)).tolist()
        exact = last_logits(fuse(load_decoder(folder)), ids[:CHECKED])
        systems = [
            system for make in (peer, ctranslate2, in_int8, in_fp8, in_int4) if (system := make(folder, options))
        ]
        bandwidths = [measured(systems, ids, options.new_tokens) for _ in range(options.rounds + 1)]
        print_rows(systems, statistics.median(bandwidths), ids, exact, options)


def random_decoder(width: int, layers: int, heads: int) -> Decoder:
    values = {"model_type": "gpt_neox", "hidden_size": width, "num_hidden_layers": layers, "vocab_size": ROWS}
    values |= {"num_attention_heads": heads, "intermediate_size": 4 * width, "bos_token_id": 0, "eos_token_id": 0}
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        decoder = Decoder(ModelConfig.from_hf(values))
    torch.set_default_dtype(torch.float32)
    decoder.to_empty(device="cpu")
    for name, parameter in decoder.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.fill_(1)
        else:
            parameter.normal_(0, 0.02)
    return decoder


def in_int8(folder: Path, options: argparse.Namespace) -> System:
    return roslin_system("Roslin int8", load_decoder(folder), quantise_8, 1.0)


def in_fp8(folder: Path, options: argparse.Namespace) -> System:
    return roslin_system("Roslin fp8", load_decoder(folder), quantise_fp8, 1.0)


def in_int4(folder: Path, options: argparse.Namespace) -> System:
    # Rounding takes less time than roslin quantize's own method, and the files are read as fast.
    return roslin_system("Roslin int4 (g64)", load_decoder(folder), round_to_4, 4.5 / 8)


def roslin_system(name: str, decoder: Decoder, quantise: Callable[[Tensor], QuantisedWeight], size: float) -> System:
    weight_bytes = in_few_bits(decoder, quantise, size)
    network = fuse(decoder)
    engine = Engine(network, ROWS, 1, speculate=False)  # random weights repeat themselves, and would be guessed

    def run(ids: list[int], count: int) -> None:
        [done] = engine.run([Request(ids, count, GREEDY)])
        assert len(done.ids) == count

    return System(name, run, weight_bytes, lambda ids: last_logits(network, ids))


def in_few_bits(decoder: Decoder, quantise: Callable[[Tensor], QuantisedWeight], size: float) -> int:
    """Quantise a decoder in place, its layers' numbers to `size` bytes each; the bytes that every step reads."""
    layers = sum(p.numel() for p in decoder.blocks.parameters() if p.dim() == 2)
    weight_bytes = int(layers * size) + decoder.head.weight.numel()
    for block in decoder.blocks:
        for part in ("qkv", "out", "up", "down"):
            setattr(block, part, quantised(getattr(block, part), quantise))
    outer = quantise_fp8 if quantise is quantise_fp8 else quantise_8
    decoder.head = quantised(decoder.head, outer)
    decoder.embedding = QuantisedEmbedding(outer(decoder.embedding.weight), lambda: decoder.dtype)
    return weight_bytes


def quantised(linear: nn.Linear, quantise: Callable[[Tensor], QuantisedWeight]) -> Any:
    return QuantisedLinear(quantise(linear.weight), linear.bias)


def peer(folder: Path, options: argparse.Namespace) -> System:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    size = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()

    def run(ids: list[int], count: int) -> None:
        batch = torch.tensor([ids])
        how = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False, "pad_token_id": 0}
        assert model.generate(batch, attention_mask=torch.ones_like(batch), **how).shape[1] == len(ids) + count

    return System("transformers bf16", run, 2 * size, lambda ids: model(torch.tensor([ids])).logits[0, -1].float())


def ctranslate2(folder: Path, options: argparse.Namespace) -> System | None:
    try:
        import ctranslate2 as package
    except ImportError:
        return None
    from roslin.publish.export_ctranslate2 import _converter

    target = folder.with_name("ctranslate2")
    _converter(folder).convert(str(target), quantization="int8", force=True)
    generator = package.Generator(str(target), device="cpu", compute_type="int8", intra_threads=options.threads)
    names = {id: token for token, id in Tokenizer.load(folder).marked_backend().get_vocab().items()}

    def run(ids: list[int], count: int) -> None:
        how = {"max_length": count, "min_length": count, "sampling_topk": 1, "include_prompt_in_result": False}
        [found] = generator.generate_batch([[names[id] for id in ids]], **how)
        assert len(found.sequences_ids[0]) == count

    def logits(ids: list[int]) -> Tensor:
        import numpy as np

        return torch.from_numpy(np.array(generator.forward_batch([ids])))[0, -1].float()

    size = sum(file.stat().st_size for file in target.glob("model.bin"))
    return System("CTranslate2 int8", run, size, logits)


def last_logits(network: Network, ids: list[int]) -> Tensor:
    hidden_ND = network.hidden(torch.tensor(ids), packed_positions([len(ids)]), PackedAttention([len(ids)]))
    return network.logits(hidden_ND[-1:])[0].float()


def measured(systems: list[System], ids: list[int], new_tokens: int) -> float:
    """One round; the bandwidth in GB/s, measured before it."""
    numbers = torch.ones(2**27)
    bandwidth = max(numbers.nbytes / seconds(numbers.max) / 1e9 for _ in range(4))
    for system in systems:
        first = seconds(lambda system=system: system.run(ids, 1))
        whole = seconds(lambda system=system: system.run(ids, new_tokens))
        system.prefill.append(len(ids) / first)
        system.decode.append((new_tokens - 1) / (whole - first))
    return bandwidth


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def print_rows(
    systems: list[System], bandwidth: float, ids: list[int], exact: Tensor, options: argparse.Namespace
) -> None:
    print(f"{options.shape}, {options.threads} threads, read bandwidth {bandwidth:.1f} GB/s,", end=" ")
    print(f"prompt {len(ids)}, new {options.new_tokens}, medians of {options.rounds}\n")
    print("| system | decode tokens/s | prefill tokens/s | GB/s | of the limit | logits off by |")
    print("|---|---|---|---|---|---|")
    for system in systems:
        decode, prefill = statistics.median(system.decode[1:]), statistics.median(system.prefill[1:])
        speed = decode * system.weight_bytes / 1e9
        found = system.logits(ids[:CHECKED])[: len(exact)] if system.logits else exact
        error = (found - exact).norm() / exact.norm()
        print(
            f"| {system.name} | {decode:.2f} | {prefill:.0f} | {speed:.1f} | {speed / bandwidth:.0%} | {error:.2%} |",
            flush=True,
        )
