"""AdamW's whole step in one Triton kernel: every number is read once and written once. It does what `plain` does.

A program works on some blocks of 128 numbers, one after the other in memory, whatever the tensor's shape. 16-bit floats
come and go as int16: a shift makes them fp32.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from roslin.tune.adamw.moments import BLOCK, FIRST_TOP, LEAST_SCALE, SECOND_TOP
from roslin.tune.adamw.noise import MULTIPLIERS
from roslin.tune.adamw.split import UNIT

_BLOCK = tl.constexpr(BLOCK)
_FIRST_TOP, _SECOND_TOP = tl.constexpr(FIRST_TOP), tl.constexpr(SECOND_TOP)
_LEAST_SCALE = tl.constexpr(LEAST_SCALE)
_MULTIPLIER1, _MULTIPLIER2 = (tl.constexpr(multiplier % 2**32) for multiplier in MULTIPLIERS)
_DROPPED = tl.constexpr(19)  # of fp32's 23 bits of mantissa, in an 8-bit code
# An 8-bit code, moved to where fp32 has its exponent and mantissa, is its number of units times 2^-130: a normal
# number or, where the code's exponent is 0, one of fp32's own equal steps below those. 2^130 is too large for fp32.
_UP1, _UP2 = tl.constexpr(2.0**100), tl.constexpr(2.0**30)
_DOWN1, _DOWN2 = tl.constexpr(2.0**-100), tl.constexpr(2.0**-30)
_UNIT = tl.constexpr(UNIT)
_TO_WHOLE = tl.constexpr(1.5 * 2.0**23)  # added and taken away, it leaves a number's nearest whole one, ties to even
_SIGN_AND_CODE = tl.constexpr(-0x7C080000)  # bit 31 and bits 19 to 25


@triton.jit(do_not_specialize=["key", "first"])
def step(
    weight_ptr, low_ptr, gradient_ptr, first_ptr, second_ptr, first_scale_ptr, second_scale_ptr, rate_ptr, factor_ptr,
    learning_rate, one_less_beta1, beta2, one_less_beta2, epsilon, weight_decay, correction1, correction2,
    key, first, count, columns,
    kind: tl.constexpr, bits: tl.constexpr, rates: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Some blocks of a tensor of `count` numbers."""
    factor = tl.load(factor_ptr)
    if factor != factor:  # noqa: PLR0124 — NaN: leave all alone
        return
    block_B = tl.program_id(0).to(tl.int64) * blocks + tl.arange(0, blocks)
    at_BK = block_B[:, None] * _BLOCK + tl.arange(0, _BLOCK)[None, :]
    inside = at_BK < count
    whole = block_B * _BLOCK < count
    gradient = tl.load(gradient_ptr + at_BK, inside, 0).to(tl.float32) * factor
    m = tl.load(first_ptr + at_BK, inside, 0)
    v = tl.load(second_ptr + at_BK, inside, 0)
    if bits == 16:
        m, v = _widened(m), _widened(v)
    if bits == 8:
        m = _first_decoded(m, tl.load(first_scale_ptr + block_B, whole, 0))
        v = _second_decoded(v, tl.load(second_scale_ptr + block_B, whole, 0))
    m += one_less_beta1 * (gradient - m)
    v = beta2 * v + one_less_beta2 * gradient * gradient

    rate = learning_rate
    if rates:
        rate = learning_rate * tl.load(rate_ptr + at_BK // columns, inside, 0)
    weight = tl.load(weight_ptr + at_BK, inside, 0)
    if kind != "fp32":
        low = tl.load(low_ptr + at_BK, inside, 0).to(tl.int32)
        weight = _joined(weight, low, kind)
    weight -= rate * weight_decay * weight
    weight -= rate * correction1 * m / (tl.sqrt(v) * correction2 + epsilon)
    if kind != "fp32":
        weight, low = _split(weight, kind)
        tl.store(low_ptr + at_BK, low, inside)
    tl.store(weight_ptr + at_BK, weight, inside)

    if bits < 32:
        lower, upper = _noise((at_BK + first).to(tl.uint32) ^ key.to(tl.uint32))
        if bits == 16:
            m = ((m.to(tl.int32, bitcast=True) + lower) >> 16).to(tl.int16)
            v = ((v.to(tl.int32, bitcast=True) + upper) >> 16).to(tl.int16)
        else:
            m, first_scale = _first_encoded(m, lower)
            v, second_scale = _second_encoded(v, upper)
            tl.store(first_scale_ptr + block_B, first_scale, whole)
            tl.store(second_scale_ptr + block_B, second_scale, whole)
    tl.store(first_ptr + at_BK, m, inside)
    tl.store(second_ptr + at_BK, v, inside)


@triton.jit
def _joined(high, low, kind: tl.constexpr):
    """The exact weight of a half, as int16, and its rest: `split.join`."""
    if kind == "bf16":
        exact = ((high.to(tl.int32) << 16) + low).to(tl.float32, bitcast=True)
    else:
        unit = _power_of_two(_exponent(high) - _UNIT)
        exact = high.to(tl.float16, bitcast=True).to(tl.float32) + low.to(tl.float32) * unit
    return exact


@triton.jit
def _split(exact, kind: tl.constexpr):
    """Both halves of an exact weight, as int16: `split.split_into`."""
    if kind == "bf16":
        low = exact.to(tl.int32, bitcast=True)
        high = ((low + 0x8000) >> 16).to(tl.int16)
    else:
        half = exact.to(tl.float16)
        high = half.to(tl.int16, bitcast=True)
        units = (exact - half.to(tl.float32)) * _power_of_two(-_exponent(high) + _UNIT)
        low = ((units + _TO_WHOLE) - _TO_WHOLE).to(tl.int32)
    return high, low.to(tl.int16)


@triton.jit
def _exponent(high):
    """fp16's exponent field; numbers below 2^-14 have the steps of the least one."""
    return tl.maximum((high.to(tl.int32) >> 10) & 0x1F, 1)


@triton.jit
def _power_of_two(exponent):
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _widened(bits_of_bf16):
    return (bits_of_bf16.to(tl.int32) << 16).to(tl.float32, bitcast=True)


@triton.jit
def _first_decoded(code_BK, scale_B):
    # Read as signed, the upper bit fills all those above it: one shift brings sign and code to their places.
    bits = (code_BK.to(tl.int8, bitcast=True).to(tl.int32) << _DROPPED) & _SIGN_AND_CODE
    return bits.to(tl.float32, bitcast=True) * _UP1 * (scale_B * (1 / _FIRST_TOP) * _UP2)[:, None]


@triton.jit
def _second_decoded(code_BK, scale_B):
    bits = code_BK.to(tl.int32) << _DROPPED
    return bits.to(tl.float32, bitcast=True) * _UP1 * (scale_B * (1 / _SECOND_TOP) * _UP2)[:, None]


@triton.jit
def _first_encoded(exact_BK, noise_BK):
    scale_B = tl.max(tl.abs(exact_BK), 1)
    units = exact_BK * _inverse(scale_B, _FIRST_TOP)[:, None] * _DOWN1
    bits = units.to(tl.int32, bitcast=True) + (noise_BK << (_DROPPED - 16))
    return (((bits >> _DROPPED) & 0x7F) | ((bits >> 24) & 0x80)).to(tl.uint8), scale_B


@triton.jit
def _second_encoded(exact_BK, noise_BK):
    scale_B = tl.max(exact_BK, 1)
    units = exact_BK * _inverse(scale_B, _SECOND_TOP)[:, None] * _DOWN1
    bits = units.to(tl.int32, bitcast=True) + (noise_BK << (_DROPPED - 16))
    return tl.maximum(bits >> _DROPPED, 1).to(tl.uint8), scale_B


@triton.jit
def _inverse(scale_B, top: tl.constexpr):
    units = tl.math.div_rn(tl.full(scale_B.shape, top, tl.float32), tl.maximum(scale_B, _LEAST_SCALE))
    return tl.where(scale_B > _LEAST_SCALE, units, 0.0) * _DOWN2


@triton.jit
def _noise(bits):
    bits ^= bits >> 16
    bits *= _MULTIPLIER1
    bits ^= bits >> 13
    bits *= _MULTIPLIER2
    bits ^= bits >> 16
    return (bits & 0xFFFF).to(tl.int32), (bits >> 16).to(tl.int32)
