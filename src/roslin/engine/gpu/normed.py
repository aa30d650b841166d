"""A vector's numbers after its norm, as they are read: parts of Triton kernels."""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def statistics(x, epsilon, norm: tl.constexpr, width: tl.constexpr, whole: tl.constexpr):
    """The mean and the inverse deviation of a vector; a mean of 0 where the norm has none."""
    columns = tl.arange(0, whole)
    inside = columns < width
    numbers = tl.load(x + columns, mask=inside, other=0.0).to(tl.float32)
    mean = 0.0
    if norm == "layer":
        mean = tl.sum(numbers, 0) / width
        numbers = tl.where(inside, numbers - mean, 0.0)
    return mean, 1.0 / tl.sqrt(tl.sum(numbers * numbers, 0) / width + epsilon)


@triton.jit
def normed(x, gain, shift, column, inside, mean, inverse, norm: tl.constexpr, kept: tl.constexpr):
    """Some columns of a vector after its norm, in fp32, zeros where not `inside`.

    `kept`: what cache x may come from.
    """
    numbers = tl.load(x + column, mask=inside, other=0.0, cache_modifier=kept).to(tl.float32)
    if norm == "layer":
        by = tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
        numbers = (numbers - mean) * inverse * by + tl.load(shift + column, mask=inside, other=0.0).to(tl.float32)
    elif norm == "rms":
        numbers = numbers * inverse * tl.load(gain + column, mask=inside, other=0.0).to(tl.float32)
    return numbers
