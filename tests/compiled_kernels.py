"""Compile the kernels of tuning for GPUs that are not here, as Triton does for one that is: PTX and machine code.

python tests/compiled_kernels.py, without TRITON_INTERPRET: prints a kernel and its GPU's capability a line.
"""

from collections.abc import Iterator
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from roslin.tune.adamw import triton_kernel as adamw
from roslin.tune.passes import attention_kernels as attention
from roslin.tune.passes import triton_kernels as passes

CAPABILITIES = {"fp16": (70, 75, 80, 90), "bf16": (80, 90)}
"""By what passes are in: V100 and T4 have no bf16; A100, A10 and L4 are compiled for as 80."""


def kernels(dtype: str) -> Iterator[tuple[Any, dict[str, Any], dict[str, str], tuple[str, ...], dict[str, int]]]:
    """Each kernel with its constants, pointers, floats (all other arguments are int32) and options."""
    half, single, bits = f"*{dtype}", "*fp32", "*i16"
    scalars = "learning_rate one_less_beta1 beta2 one_less_beta2 epsilon weight_decay correction1 correction2"
    state = {"low_ptr": bits, "first_ptr": "*u8", "second_ptr": "*u8", "rate_ptr": single, "factor_ptr": single}
    state |= {"first_scale_ptr": single, "second_scale_ptr": single}
    for gradient in (half, single):
        pointers = {"weight_ptr": bits, "gradient_ptr": gradient} | state
        yield adamw.step, {"kind": dtype, "bits": 8, "rates": True, "blocks": 16}, pointers, tuple(scalars.split()), {}

    def of(names: str) -> dict[str, str]:
        return dict.fromkeys(names.split(), half)

    sums = {"sums": single}
    norms = of("x gain1 bias1 gain2 bias2 out1 out2") | {"statistics": single}
    yield passes.norms, {"two": True, "block": 4096}, norms, ("epsilon",), {"num_warps": 16}
    back = of("x grad1 grad2 onto gain1 gain2 out") | {"statistics": single} | sums
    yield passes.norms_backward, {"two": True, "both": True, "block": 4096}, back, (), {"num_warps": 16}
    yield passes.activate, {"kind": "gelu", "block": 2048}, of("up out"), (), {}
    tiles = {"kind": "gelu", "part": 64, "tile_rows": 8, "tile": 512}
    yield passes.activate_backward, tiles, of("up grad out") | sums, (), {}
    yield passes.column_sums, {"part": 128, "tile_rows": 16, "tile": 256}, of("x") | sums, (), {}
    turn = {"sign": 1, "interleaved": False, "heads_block": 64, "half_block": 16}
    yield passes.turn, turn, of("qkv cos sin"), (), {}
    turn_back = {"interleaved": True, "part": 128, "tile_rows": 16, "head_block": 256}
    yield passes.turn_back, turn_back, of("q k v cos sin out") | sums, (), {}
    yield passes.add, {"block": 2048}, of("x y z out"), (), {}
    logits = of("logits") | {"target": "*i64", "nll": single}
    yield passes.cross_entropy, {"tile": 8192}, logits, ("scale",), {"num_warps": 8}
    attended = of("qkv out grad_out grad_qkv") | dict.fromkeys(("log_sums", "products"), single) | {"tiles": "*i32"}
    for kernel in (attention.forward, attention.backward_queries, attention.backward_keys):
        yield kernel, {"tile": 64, "dims": 128, "precision": "tf32"}, attended, ("scale",), {}


def main() -> None:
    for dtype, capabilities in CAPABILITIES.items():
        for kernel, constants, pointers, floats, options in kernels(dtype):
            names = kernel.arg_names
            kinds = pointers | dict.fromkeys(constants, "constexpr") | dict.fromkeys(floats, "fp32")
            source = ASTSource(
                kernel,
                {name: kinds.get(name, "i32") for name in names},
                {(names.index(name),): value for name, value in constants.items()},
            )
            for capability in capabilities:
                if capability < 80 and kernel.__module__.endswith("attention_kernels"):
                    continue  # attention is torch's there
                made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4} | options)
                assert made.asm["cubin"]
                print(f"{kernel.__name__} {dtype} sm_{capability}", flush=True)


if __name__ == "__main__":
    main()
