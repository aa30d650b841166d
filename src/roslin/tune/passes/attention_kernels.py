"""Triton kernels of causal attention over packed runs, forward and backward, without atomics: the same bits each time.

A program works on one tile of tokens of one run and one head; tiles come from a table, so that a short run costs no
program for lengths it does not have. Queries, keys and values lie side by side in one tensor, and so do their
gradients. Scores are in base 2 and in fp32.
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _rows(base, row, inside, place, stride, head_dim):
    """A tile of rows of one head; what lies outside is zero."""
    return tl.load(
        base + row[:, None] * stride + place[None, :], mask=inside[:, None] & (place[None, :] < head_dim), other=0.0
    )


@triton.jit(do_not_specialize=["tokens"])
def forward(
    qkv, out, log_sums, tiles, tokens, heads, head_dim, stride, scale,
    tile: tl.constexpr, dims: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """What a tile's queries gather, and the logarithm of each one's sum of exponentials."""
    head = tl.program_id(1)
    entry = tiles + 3 * tl.program_id(0)
    first, run, end = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    place = tl.arange(0, dims)
    of_q = qkv + first.to(tl.int64) * stride + head * head_dim
    of_k = qkv + run.to(tl.int64) * stride + (heads + head) * head_dim
    of_v = of_k + heads * head_dim
    row = tl.arange(0, tile)
    inside = row < end - first
    q = _rows(of_q, row, inside, place, stride, head_dim)
    most = tl.full((tile,), float("-inf"), tl.float32)
    total = tl.zeros((tile,), tl.float32)
    gathered = tl.zeros((tile, dims), tl.float32)
    before = first - run
    for start in range(0, before + tile, tile):
        key = start + tl.arange(0, tile)
        there = key < end - run
        k = _rows(of_k, key, there, place, stride, head_dim)
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale
        seen = there[None, :] & (before + row[:, None] >= key[None, :])
        scores = tl.where(seen, scores, float("-inf"))
        above = tl.maximum(most, tl.max(scores, 1))
        share = tl.exp2(scores - above[:, None])
        rest = tl.exp2(most - above)
        total = total * rest + tl.sum(share, 1)
        v = _rows(of_v, key, there, place, stride, head_dim)
        gathered = gathered * rest[:, None] + tl.dot(share.to(v.dtype), v, input_precision=precision)
        most = above
    gathered = gathered / total[:, None]
    places = (first.to(tl.int64) + row[:, None]) * heads * head_dim + head * head_dim + place[None, :]
    tl.store(out + places, gathered, mask=inside[:, None] & (place[None, :] < head_dim))
    tl.store(log_sums + head.to(tl.int64) * tokens + first + row, most + tl.log2(total), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def backward_queries(
    qkv, out, grad_out, log_sums, products, grad_qkv, tiles, tokens, heads, head_dim, stride, scale,
    tile: tl.constexpr, dims: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile's queries; and the product of what each gathered with its gradient, for the next kernel."""
    head = tl.program_id(1)
    entry = tiles + 3 * tl.program_id(0)
    first, run, end = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    place = tl.arange(0, dims)
    of_q = qkv + first.to(tl.int64) * stride + head * head_dim
    of_k = qkv + run.to(tl.int64) * stride + (heads + head) * head_dim
    of_v = of_k + heads * head_dim
    row = tl.arange(0, tile)
    inside = row < end - first
    q = _rows(of_q, row, inside, place, stride, head_dim)
    narrow = heads * head_dim
    to_out = first.to(tl.int64) * narrow + head * head_dim
    grad = _rows(grad_out + to_out, row, inside, place, narrow, head_dim)
    made = _rows(out + to_out, row, inside, place, narrow, head_dim)
    product = tl.sum(grad.to(tl.float32) * made.to(tl.float32), 1)
    to_row = head.to(tl.int64) * tokens + first + row
    tl.store(products + to_row, product, mask=inside)
    log_sum = tl.load(log_sums + to_row, mask=inside, other=0.0)
    grad_q = tl.zeros((tile, dims), tl.float32)
    before = first - run
    for start in range(0, before + tile, tile):
        key = start + tl.arange(0, tile)
        there = key < end - run
        k = _rows(of_k, key, there, place, stride, head_dim)
        v = _rows(of_v, key, there, place, stride, head_dim)
        scores = tl.dot(q, tl.trans(k), input_precision=precision) * scale
        seen = there[None, :] & (before + row[:, None] >= key[None, :])
        share = tl.where(seen, tl.exp2(scores - log_sum[:, None]), 0.0)
        of_share = tl.dot(grad, tl.trans(v), input_precision=precision)
        of_scores = share * (of_share - product[:, None])
        grad_q += tl.dot(of_scores.to(k.dtype), k, input_precision=precision)
    grad_q *= scale * 0.6931471805599453
    to_q = grad_qkv + first.to(tl.int64) * stride + head * head_dim
    tl.store(to_q + row[:, None] * stride + place[None, :], grad_q, mask=inside[:, None] & (place[None, :] < head_dim))


@triton.jit(do_not_specialize=["tokens"])
def backward_keys(
    qkv, grad_out, log_sums, products, grad_qkv, tiles, tokens, heads, head_dim, stride, scale,
    tile: tl.constexpr, dims: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile's keys and values, from all queries of the run that see them."""
    head = tl.program_id(1)
    entry = tiles + 3 * tl.program_id(0)
    first, end = tl.load(entry), tl.load(entry + 2)
    place = tl.arange(0, dims)
    of_q = qkv + first.to(tl.int64) * stride + head * head_dim
    of_k = of_q + heads * head_dim
    of_v = of_k + heads * head_dim
    key = tl.arange(0, tile)
    inside = key < end - first
    k = _rows(of_k, key, inside, place, stride, head_dim)
    v = _rows(of_v, key, inside, place, stride, head_dim)
    narrow = heads * head_dim
    of_grad = grad_out + first.to(tl.int64) * narrow + head * head_dim
    of_row = head.to(tl.int64) * tokens + first
    grad_k = tl.zeros((tile, dims), tl.float32)
    grad_v = tl.zeros((tile, dims), tl.float32)
    for start in range(0, end - first, tile):
        row = start + tl.arange(0, tile)
        there = row < end - first
        q = _rows(of_q, row, there, place, stride, head_dim)
        grad = _rows(of_grad, row, there, place, narrow, head_dim)
        log_sum = tl.load(log_sums + of_row + row, mask=there, other=0.0)
        product = tl.load(products + of_row + row, mask=there, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision=precision) * scale
        seen = there[None, :] & inside[:, None] & (row[None, :] >= key[:, None])
        share = tl.where(seen, tl.exp2(scores - log_sum[None, :]), 0.0)
        grad_v += tl.dot(share.to(grad.dtype), grad, input_precision=precision)
        of_share = tl.dot(v, tl.trans(grad), input_precision=precision)
        of_scores = share * (of_share - product[None, :])
        grad_k += tl.dot(of_scores.to(q.dtype), q, input_precision=precision)
    grad_k *= scale * 0.6931471805599453
    to_k = grad_qkv + first.to(tl.int64) * stride + (heads + head) * head_dim
    places = key[:, None] * stride + place[None, :]
    mask = inside[:, None] & (place[None, :] < head_dim)
    tl.store(to_k + places, grad_k, mask=mask)
    tl.store(to_k + heads * head_dim + places, grad_v, mask=mask)
