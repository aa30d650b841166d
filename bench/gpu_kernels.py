"""Roslin's tuning kernels on one GPU: each against plain torch, and how much of the memory's speed it reaches.

    python bench/gpu_kernels.py

At Pythia 6.9B's width and an update's tokens. Errors are relative to the plain result, taken in fp32. Rates count the
bytes that a kernel must read and write, beside those of a copy on the same GPU.
"""

from __future__ import annotations

import argparse
import traceback
from functools import partial
from typing import TYPE_CHECKING

import torch
from triton.testing import do_bench

from gpu_shared import config_of, need_gpu, real_updates
from roslin.model import packed_positions
from roslin.model.attention import PackedAttention
from roslin.model.rotary import Rotary, Turns
from roslin.tune.adamw import kernel as adamw_kernel
from roslin.tune.adamw import plain as adamw_plain
from roslin.tune.adamw.moments import Moments
from roslin.tune.adamw.plain import Held, Step
from roslin.tune.passes import kernels, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

WIDTH = 4096


def draw(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return (torch.randn(shape, device="cuda") * scale).bfloat16()


def copies(x: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [part.clone() for part in x]


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.float() - theirs.float()).norm() / theirs.float().norm())


def flat(found: object) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    return [tensor for part in found for tensor in flat(part)]  # type: ignore[attr-defined]


def report(name: str, count: int, ours: Callable[[], object], theirs: Callable[[], object]) -> None:
    """Errors of all that both give, and the rate at which `ours` moves `count` bytes."""
    try:
        pairs = list(zip(flat(ours()), flat(theirs()), strict=True))
        worst = max(error(mine, its) for mine, its in pairs)
        milliseconds = do_bench(ours, warmup=5, rep=20, return_mode="median")
        print(
            f"  {name:44s} error {worst:.1e}  {milliseconds:7.3f} ms  {count / milliseconds / 1e9:5.2f} TB/s",
            flush=True,
        )
    except Exception:
        print(f"  {name} failed: {traceback.format_exc(limit=-3)}", flush=True)


def passes(tokens: int) -> None:
    config = config_of("6.9b")
    units = 2 * tokens * WIDTH
    x, grad1, grad2, onto = (draw(tokens, WIDTH) for _ in range(4))
    affines = ((draw(WIDTH), draw(WIDTH)), (draw(WIDTH), draw(WIDTH)))
    report("norms", 3 * units, lambda: kernels.norms(x, affines, 1e-5), lambda: plain.norms(x, affines, 1e-5))
    _, statistics = plain.norms(x, affines, 1e-5)
    report(
        "norms, backward",
        5 * units,
        lambda: kernels.norms_backward(x, statistics, [grad1, grad2], affines, onto),
        lambda: plain.norms_backward(x, statistics, [grad1, grad2], affines, onto),
    )
    up, grad_up = draw(tokens, 4 * WIDTH), draw(tokens, 4 * WIDTH)
    for activation in ("gelu", "gelu_new"):
        report(
            activation,
            8 * units,
            lambda a=activation: kernels.activate(up, a),
            lambda a=activation: plain.activate(up, a),
        )
        report(
            f"{activation}, backward, with a copy",
            24 * units,
            lambda a=activation: kernels.activate_backward(up, grad_up.clone(), a),
            lambda a=activation: plain.activate_backward(up, grad_up.clone(), a),
        )
    report("sums of columns", units, lambda: kernels.column_sums(x), lambda: plain.column_sums(x))
    report("sum of three", 4 * units, lambda: kernels.add(x, grad1, onto), lambda: plain.add(x, grad1, onto))
    lengths = [tokens // 48] * 48
    lengths[-1] += tokens - sum(lengths)
    turns = Rotary(config).turns(packed_positions(lengths).cuda(), torch.bfloat16, PackedAttention(lengths))
    qkv = draw(tokens, 3 * config.heads, config.head_dim)
    report(
        "turn, with a copy", 7 * units, lambda: kernels.turn(qkv.clone(), turns), lambda: plain.turn(qkv.clone(), turns)
    )
    q, k, v = copies(qkv.split_with_sizes((config.heads,) * 3, 1))
    report("turn back", 6 * units, lambda: kernels.turn_back(q, k, v, turns), lambda: plain.turn_back(q, k, v, turns))
    logits, target = draw(tokens // 2, 50432), torch.randint(0, 50432, (tokens // 2,), device="cuda")

    def loss(work: object) -> list[torch.Tensor]:
        gradient = logits.clone()
        return [work.cross_entropy(gradient, target, 1e-3), gradient]  # type: ignore[attr-defined]

    report("cross-entropy, with a copy", 5 * logits.numel() * 2, lambda: loss(kernels), lambda: loss(plain))


def attention() -> None:
    """Attention over an update's records with the turn back, beside torch's own kernel for runs of unlike lengths."""
    for shape in ("6.9b", "2.8b"):
        config = config_of(shape)
        lengths = [len(example.ids) for row in real_updates(1)[0] for example in row]
        positions = packed_positions(lengths).cuda()
        attend = PackedAttention(lengths)
        turns = Rotary(config).turns(positions, torch.bfloat16, attend)
        heads = (config.heads,) * 3
        qkv = draw(sum(lengths), 3 * config.heads, config.head_dim)
        grad = draw(sum(lengths), config.heads, config.head_dim)
        units = 2 * grad.numel()

        def passes(
            work: ModuleType,
            qkv: torch.Tensor = qkv,
            attend: PackedAttention = attend,
            heads: tuple[int, int, int] = heads,
            grad: torch.Tensor = grad,
            turns: Turns = turns,
        ) -> list[torch.Tensor]:
            kept = work.attend(qkv, attend, 0, heads)
            return [kept.gathered_NHK.detach(), *work.attend_backward(kept, grad, turns)]

        def forward(
            work: ModuleType,
            qkv: torch.Tensor = qkv,
            attend: PackedAttention = attend,
            heads: tuple[int, int, int] = heads,
        ) -> torch.Tensor:
            gathered: torch.Tensor = work.attend(qkv, attend, 0, heads).gathered_NHK.detach()
            return gathered

        name = f"attention, {len(lengths)} records, {sum(lengths)} tokens, heads of {config.head_dim}"
        report(f"{name}, forward", 4 * units, partial(forward, kernels), partial(forward, plain))
        report("  the same, torch's", 4 * units, partial(forward, plain), partial(forward, plain))
        report("  and backward", 16 * units, partial(passes, kernels), partial(passes, plain))
        report("  the same, torch's", 16 * units, partial(passes, plain), partial(passes, plain))


def adamw() -> None:
    """One tensor's step, by the kernel and in plain torch."""
    for kind, size in (("fp32", 26), ("bf16", 18), ("8bit", 14)):  # bytes a number, read and written
        shape = (4 * WIDTH, WIDTH)
        held = [_held(kind, shape) for _ in range(2)]
        gradient, one = draw(*shape, scale=1e-3), torch.ones((), device="cuda")

        def step(
            work: object, of: Held, number: int = 3, gradient: torch.Tensor = gradient, one: torch.Tensor = one
        ) -> None:
            told = Step(
                number=number, learning_rate=1e-4, betas=(0.9, 0.999), epsilon=1e-8, weight_decay=0.01, key=number
            )
            work.step(of, gradient, one, told)  # type: ignore[attr-defined]

        try:
            for number in (1, 2, 3):
                step(adamw_kernel, held[0], number)
                step(adamw_plain, held[1], number)
            apart = {
                name: f"{error(mine, its):.0e}"
                for (name, mine), its in zip(_state(held[0]).items(), _state(held[1]).values(), strict=True)
            }
            milliseconds = do_bench(lambda h=held[0]: step(adamw_kernel, h), warmup=5, rep=20, return_mode="median")
            moved = gradient.numel() * size
            print(
                f"  AdamW, {kind} moments: errors {apart}  {milliseconds:.3f} ms  "
                f"{moved / milliseconds / 1e9:.2f} TB/s",
                flush=True,
            )
        except Exception:
            print(f"  AdamW {kind} failed: {traceback.format_exc(limit=-3)}", flush=True)


def _held(kind: str, shape: tuple[int, int]) -> Held:
    generator = torch.Generator("cuda").manual_seed(1)
    weight = (torch.randn(shape, device="cuda", generator=generator) * 0.02).bfloat16()
    return Held(weight, torch.zeros(shape, dtype=torch.int16, device="cuda"), Moments.zeros(kind, weight), None, 0)


def _state(held: Held) -> dict[str, torch.Tensor]:
    found = {"weight": held.weight, "low": held.low} | held.moments.parts()
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def ceilings() -> None:
    """What a copy and a large product reach on this GPU."""
    big = torch.empty(2**30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(big)
    copy = do_bench(lambda: other.copy_(big), warmup=5, rep=20, return_mode="median")
    a, b = draw(8192, 8192), draw(8192, 8192)
    product = do_bench(lambda: a @ b, warmup=5, rep=40, return_mode="median")
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: copy {2 * big.numel() / copy / 1e9:.2f} TB/s, "
        f"8192^3 product {2 * 8192**3 / product / 1e9:.0f} TFLOP/s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=9299)
    asked = parser.parse_args()
    need_gpu()
    ceilings()
    passes(asked.tokens)
    attention()
    adamw()


if __name__ == "__main__":
    main()
