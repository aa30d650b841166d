"""Numbers in fp8 as Triton kernels make them: a part of kernels, for the cache and for products."""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def as_kept(x, kind: tl.constexpr):
    """Numbers as `kind` keeps them: in fp8 none is beyond the greatest there is.

    They are rounded to fp8's three bits here, as torch does it; conversions differ in that, by their device.
    """
    if kind == tl.float8e4nv:
        x = tl.minimum(tl.maximum(x.to(tl.float32), -448.0), 448.0)
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFFF + ((bits >> 20) & 1)) & -0x100000
        # Those below 2^-6 are multiples of 2^-9.
        x = tl.where(tl.abs(x) < 0.015625, (x + 24576.0) - 24576.0, bits.to(tl.float32, bitcast=True))
    return x.to(kind)
