"""The choice of each sequence's next token in one kernel: what `roslin.engine.sampler` draws, and nobody waits for it.

A row's limits are found by bisection over its numbers, not by sorting: the `top_k` best are those at or above a number
that so many reach, and the nucleus those at or above one beyond which the others weigh less than `top_p`. Of numbers
that are level with the last one, all are in. To be imported only where Triton is.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

STEP = tl.constexpr(-7046029254386353131)
FIRST = tl.constexpr(-4658895280553007687)
SECOND = tl.constexpr(-7723592293110705685)
"""SplitMix64's, as signed numbers: see `roslin.engine.noise`."""
LEAST = tl.constexpr(-(2**31))


@triton.jit
def _shifted(value, bits: tl.constexpr):
    """Shifted right as if unsigned."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


@triton.jit
def _noise(key, id):
    """For a key and ids, the logarithm of a draw of the standard exponential distribution, in fp64."""
    value = id.to(tl.int64) * STEP + key
    value = (value ^ _shifted(value, 30)) * FIRST
    value = (value ^ _shifted(value, 27)) * SECOND
    value = value ^ _shifted(value, 31)
    uniform = (_shifted(value, 12).to(tl.float64) + 0.5) * 2.220446049250313e-16
    return tl.log(-tl.log(uniform))


@triton.jit
def _part(logits, start, count, block: tl.constexpr):
    """Some of a row's numbers in fp32, -inf beyond `count`, and int32 numbers that compare as they do."""
    column = start + tl.arange(0, block)
    x = tl.load(logits + column, mask=column < count, other=float("-inf")).to(tl.float32)
    bits = x.to(tl.int32, bitcast=True)
    return x, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def _best(logits, count, block: tl.constexpr):
    """The greatest number of a row, and where the first one of it stands."""
    most, place = float("-inf"), 0
    for start in range(0, count, block):
        x, _ = _part(logits, start, count, block)
        here = tl.max(x, 0)
        place = tl.where(here > most, start + tl.argmax(x, 0), place)
        most = tl.maximum(most, here)
    return most, place


@triton.jit
def _weight(logits, count, most, temperature, least, block: tl.constexpr):
    """The sum of exp((x - most) / temperature) over the numbers that compare as `least` or more."""
    total = 0.0
    for start in range(0, count, block):
        x, order = _part(logits, start, count, block)
        total += tl.sum(tl.where(order >= least, tl.exp((x - most) / temperature), 0.0), 0)
    return total


@triton.jit
def _reached(logits, count, top_k, block: tl.constexpr):
    """The highest number that at least `top_k` reach, as it compares."""
    low, high = tl.full((), LEAST, tl.int64), tl.full((), -LEAST - 1, tl.int64)
    for _ in range(32):
        middle = (low + high + 1) >> 1
        many = 0
        for start in range(0, count, block):
            x, order = _part(logits, start, count, block)
            many += tl.sum(((order >= middle) & (x > float("-inf"))).to(tl.int32), 0)
        enough = many >= top_k
        low, high = tl.where(enough, middle, low), tl.where(enough, high, middle - 1)
    return low


@triton.jit
def _nucleus(logits, count, most, temperature, least, weight, block: tl.constexpr):
    """The lowest number, as it compares, beyond which others that reach `least` weigh less than `weight`."""
    low, high = least, tl.full((), -LEAST - 1, tl.int64)
    for _ in range(32):
        middle = (low + high) >> 1
        light = _weight(logits, count, most, temperature, middle + 1, block) < weight
        low, high = tl.where(light, low, middle + 1), tl.where(light, middle, high)
    return low


@triton.jit
def _raced(logits, count, temperature, least, key, block: tl.constexpr):
    """Who of those that reach `least` wins the race."""
    best, place = tl.full((), float("-inf"), tl.float64), 0
    for start in range(0, count, block):
        x, order = _part(logits, start, count, block)
        score = (x / temperature).to(tl.float64) - _noise(key, start + tl.arange(0, block))
        score = tl.where(order >= least, score, float("-inf"))
        here = tl.max(score, 0)
        place = tl.where(here > best, start + tl.argmax(score, 0), place)
        best = tl.maximum(best, here)
    return place


@triton.jit
def draw(ids, logprobs, logits, keys, limits, stride, vocabulary, rows, drawn: tl.constexpr, block: tl.constexpr):
    """One sequence's token: its id below `vocabulary`, and its log-probability among all `rows` of the head.

    `limits` [B, 4] are temperature (0 takes the best), top_p, top_k (of these, 0 is none), and nothing. Unless `drawn`
    all take the best, and neither `keys` nor `limits` is read.
    """
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * stride
    most, place = _best(own, vocabulary, block)
    if drawn:
        temperature = tl.load(limits + row * 4)
        top_p, top_k = tl.load(limits + row * 4 + 1), tl.load(limits + row * 4 + 2)
        if temperature > 0:
            least = tl.full((), LEAST, tl.int64)
            if top_k > 0:
                least = _reached(own, vocabulary, top_k, block)
            if top_p > 0:
                weight = top_p * _weight(own, vocabulary, most, temperature, least, block)
                least = _nucleus(own, vocabulary, most, temperature, least, weight, block)
            place = _raced(own, vocabulary, temperature, least, tl.load(keys + row), block)
    whole, _ = _best(own, rows, block)
    total = _weight(own, rows, whole, 1.0, LEAST, block)
    tl.store(ids + row, place.to(tl.int64))
    tl.store(logprobs + row, tl.load(own + place).to(tl.float32) - whole - tl.log(total))
