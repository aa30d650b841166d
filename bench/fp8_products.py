"""Products in fp8 on a GPU: whether they are right, and what they take beside bf16, at the shapes of a 6.9B block.

usage: python bench/fp8_products.py [--tokens 9216]

Errors are relative Frobenius norms against fp32. Times are milliseconds, the mean of ten after two of warm-up:
bf16, fp8 with fast sums, fp8 with exact ones (both the product alone), and fp8 with everything quantised anew.
"""

import argparse
import traceback
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gpu_shared import need_gpu
from roslin.model.fp8 import FP8
from roslin.tune.passes import fp8_scaling
from roslin.tune.passes.fp8 import TOP, Fp8Products, product

WIDTH = 4096
SHAPES = {"qkv": (3 * WIDTH, WIDTH), "out": (WIDTH, WIDTH), "up": (4 * WIDTH, WIDTH), "down": (WIDTH, 4 * WIDTH)}
TILES = (((64, 128), 8), ((64, 128), 4), ((128, 64), 8), ((64, 64), 4), ((128, 128), 16))
COUNTS = (2048, 1999, 5)
REPEATS = 10


def check_on_gpu(tokens: int = 9216) -> None:
    """Print what is right and how long it takes. A part that fails prints its traceback, and the next begins."""
    print(f"fp8 products: {torch.cuda.get_device_name()}, torch {torch.__version__}, {tokens} tokens", flush=True)
    time_all = partial(time_products, tokens)
    of_products = [partial(check_products, count) for count in COUNTS]
    for part in (check_kernels, *of_products, check_sums, time_kernels, time_all):
        attempt(part)


def attempt(part: Callable[[], None]) -> None:
    try:
        part()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except Exception:
        print(f"FAILED: {part}\n{traceback.format_exc(limit=-4)}", flush=True)


def draw(*shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16) * scale


def check_kernels() -> None:
    from roslin.tune.passes import fp8_kernels

    spread = torch.logspace(-6, 4, 1000, device="cuda", dtype=torch.bfloat16)[:, None]
    cases = {
        "even": draw(1024, 512),
        "odd": draw(1000, 528) * spread,
        "one token": draw(1, 4096),
        "zeros": torch.zeros(100, 64, device="cuda", dtype=torch.bfloat16),
        "huge": draw(77, 64, scale=1e36),
        "denormal": draw(77, 64, scale=1e-39),
        "part of wider": draw(500, 96)[:, 32:80],
    }
    for name, x in cases.items():
        largest = fp8_kernels.amax(x)
        found = [f"amax {'equal' if torch.equal(largest, fp8_scaling.amax(x)) else 'DIFFERS'}"]
        for copies in ((True, False), (False, True), (True, True)):
            ours, theirs = (work.quantise(x, largest, FP8, TOP, *copies) for work in (fp8_kernels, fp8_scaling))
            found += [differences(*pair) for pair in zip(ours, theirs, strict=True)]
        wrong = [what for what in found if what not in ("", "amax equal")]
        print(f"  kernels, {name:14} {' '.join(wrong) or 'equal to plain torch bit by bit'}", flush=True)
    broken = draw(100, 64)
    broken[5, 5] = float("nan")
    made = fp8_kernels.quantise(broken, fp8_kernels.amax(broken), FP8, TOP, True, False)[0]
    print(f"  kernels, NaN            {'stays' if made is not None and made.float()[5, 5].isnan() else 'IS LOST'}")


def differences(ours: Tensor | None, theirs: Tensor | None) -> str:
    if ours is None or theirs is None:
        return "" if ours is theirs else "MISSING"
    if ours.dim() == 0:
        return "" if torch.allclose(ours, theirs, rtol=1e-6, atol=0) else f"descale {ours.item()} for {theirs.item()}"
    wrong = (ours.view(torch.int8) != theirs.view(torch.int8)).sum().item()
    return f"{wrong}/{ours.numel()} differ" if wrong else ""


def check_products(count: int) -> None:
    """Errors of products of `count` tokens, an odd number of them too."""
    x, weight, bias = draw(count, 1024), draw(1536, 1024, scale=0.02), draw(1536)
    grad, sums = draw(count, 1536, scale=1e-6), draw(1536, 1024, scale=1e-6)
    products = Fp8Products(torch.device("cuda"))
    operand, gradient = products.operand(x), products.operand(grad)
    forward, of_weight = x.float() @ weight.float().T, grad.float().T @ x.float()
    pairs: dict[str, tuple[Callable[[], Tensor], Tensor]] = {
        "forward": (lambda: products.forward(operand, weight, None), forward),
        "with bias": (lambda: products.forward(operand, weight, bias), forward + bias.float()),
        "grad_input": (lambda: products.grad_input(gradient, weight), grad.float() @ weight.float()),
        "grad_weight": (lambda: products.grad_weight(gradient, operand, None), of_weight),
        "added": (lambda: products.grad_weight(gradient, operand, sums.clone()), of_weight + sums.float()),
    }
    for name, (ours, exact) in pairs.items():
        attempt(partial(print_error, f"{count:5} tokens, {name:12}", ours, exact))


def check_sums() -> None:
    """What summing inside the tensor cores alone adds, on the longest contraction: against fp32 sums of the factors."""
    products = Fp8Products(torch.device("cuda"))
    for name, x in (("of both signs", draw(2048, 16384)), ("all positive", draw(2048, 16384).abs())):
        left, right = (products.operand(each).by_rows() for each in (x, draw(2048, 16384).abs()))
        exact = (left.numbers_RK.float() * left.descale) @ (right.numbers_RK.float() * right.descale).T
        for fast in (True, False):
            what = f"sums {name:13} {'fast' if fast else 'exact':5}"
            attempt(partial(print_error, what, partial(product, left, right, None, fast=fast), exact))


def print_error(what: str, ours: Callable[[], Tensor], exact: Tensor) -> None:
    made = ours().float()
    print(f"  products, {what} off by {float((made - exact).norm() / exact.norm()):.4f}", flush=True)


def milliseconds(work: Callable[[], object]) -> float:
    for _ in range(2):
        work()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(REPEATS):
        work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / REPEATS


def time_kernels() -> None:
    """Magnitude and copies of 151 million numbers: ms and TB/s of what is read and written."""
    from roslin.tune.passes import fp8_kernels

    x = draw(9216, 16384)
    largest = fp8_kernels.amax(x)

    def line(what: str, work: Callable[[], object], each: int) -> None:
        took = milliseconds(work)
        print(f"  {what:34} {took:6.3f} ms {x.numel() * each / took / 1e9:5.2f} TB/s", flush=True)

    line("amax", lambda: fp8_kernels.amax(x), 2)
    usual = fp8_kernels.TILE, fp8_kernels.TILE_WARPS
    for (tile, warps), copies in [(t, (True, True)) for t in TILES] + [(usual, (True, False)), (usual, (False, True))]:
        fp8_kernels.TILE, fp8_kernels.TILE_WARPS = tile, warps
        how = (x, largest, FP8, TOP, *copies)
        name = {(True, True): "both copies", (True, False): "rows", (False, True): "transposed"}[copies]
        attempt(
            partial(line, f"{name}, tile {tile}, {warps} warps", partial(fp8_kernels.quantise, *how), 2 + sum(copies))
        )
    fp8_kernels.TILE, fp8_kernels.TILE_WARPS = usual


def time_products(tokens: int) -> None:
    print(f"  {'ms':18} {'bf16':>7} {'fast':>7} {'exact':>7} {'quantised':>9} {'TFLOP/s bf16, fast':>20}")
    totals = [0.0] * 4
    for name, shape in SHAPES.items():
        attempt(partial(time_shape, name, shape, tokens, totals))
    print(f"  {'a layer':18} " + " ".join(f"{total:7.3f}" for total in totals), flush=True)


def time_shape(name: str, shape: tuple[int, int], tokens: int, totals: list[float]) -> None:
    weight, x, grad = draw(*shape, scale=0.02), draw(tokens, shape[1]), draw(tokens, shape[0], scale=1e-6)
    bias, products = draw(shape[0]), Fp8Products(torch.device("cuda"))
    kept_x, kept_grad, kept_weight = (products.operand(each) for each in (x, grad, weight))
    plain = {
        "forward": lambda: torch.nn.functional.linear(x, weight, bias),
        "grad_input": lambda: grad @ weight,
        "grad_weight": lambda: grad.T @ x,
    }
    alone: dict[str, Callable[[bool], Tensor]] = {
        "forward": lambda fast: product(kept_x.by_rows(), kept_weight.by_rows(), bias, fast=fast),
        "grad_input": lambda fast: product(kept_grad.by_rows(), kept_weight.transposed(), None, fast=fast),
        "grad_weight": lambda fast: product(kept_grad.transposed(), kept_x.transposed(), None, fast=fast),
    }

    def grad_input() -> Tensor:
        """As a pass does it: forward has found the weight's magnitude; the gradient's other copy is made on the way."""
        matrix = products.operand(weight, kept_weight.largest)
        return product(products.operand(grad).by_rows(both=True), matrix.transposed(), None, fast=True)

    whole: dict[str, Callable[[], object]] = {
        "forward": lambda: products.forward(products.operand(x), weight, bias),
        "grad_input": grad_input,
        "grad_weight": lambda: products.grad_weight(kept_grad, products.operand(x), None),
    }
    flops = 2 * tokens * shape[0] * shape[1]
    for step, in_bf16 in plain.items():
        times = [
            milliseconds(in_bf16),
            milliseconds(partial(alone[step], True)),
            milliseconds(partial(alone[step], False)),
            milliseconds(whole[step]),
        ]
        for i, took in enumerate(times):
            totals[i] += took
        speeds = " ".join(f"{flops / took / 1e9:7.0f}" for took in times[:2])
        print(f"  {name:5} {step:12} " + " ".join(f"{took:7.3f}" for took in times) + f"   {speeds}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=9216)
    asked = parser.parse_args()
    need_gpu()
    check_on_gpu(asked.tokens)


if __name__ == "__main__":
    main()
