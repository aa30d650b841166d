"""Prints what attention's three kernels need of shared memory, in bytes: compiled for a GPU that need not be here."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from roslin.tune.passes import attention_kernels, kernels

DTYPES = {"tiles": "*i32", "log_sums": "*fp32", "products": "*fp32", "tokens": "i32", "scale": "fp32"}
SIZES = ("heads", "head_dim", "stride")
TOLD = {"tile": kernels.ATTENTION_TILE, "dims": 128, "precision": "tf32"}


def shared_memory(name: str, stages: int, capability: int) -> int:
    function = getattr(attention_kernels, name)
    names = function.arg_names
    kinds = dict.fromkeys(names, "*bf16") | dict.fromkeys(SIZES, "i32") | dict.fromkeys(TOLD, "constexpr") | DTYPES
    aligned = [place for place, called in enumerate(names) if kinds[called][0] == "*" or called in SIZES]
    source = ASTSource(
        fn=function,
        signature={called: kinds[called] for called in names},
        constexprs={(names.index(called),): value for called, value in TOLD.items()},
        attrs={(place,): [["tt.divisibility", 16]] for place in aligned},
    )
    options = {"num_warps": 4, "num_stages": stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return int(compiled.metadata.shared)


for kind, stages in kernels.ATTENTION_STAGES.items():
    name = kind if kind == "forward" else f"backward_{kind}"
    print(shared_memory(name, stages, int(sys.argv[1])))
