// The attention of tokens that lie one behind the other. Included once for each level of instructions, behind lanes.h:
// no guard, no headers.
//
// Each lane of a register is a token that asks, so that what is known of a key or a value is read once for all of them
// and no sum runs across lanes. Weights are [keys, LANES].

constexpr int KEYS = 8;
constexpr int ASKING = 4;
constexpr int WIDE = LANES == 16 ? 4 : 2;

// Four numbers of each of four tokens, turned over; false where that is left to be done one by one.
ROSLIN_INLINE bool four_by_four(const float *q, int64_t stride, float *to) {
#if defined(ROSLIN_X86)
    __m128 a = _mm_loadu_ps(q), b = _mm_loadu_ps(q + stride);
    __m128 c = _mm_loadu_ps(q + 2 * stride), d = _mm_loadu_ps(q + 3 * stride);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(to, a);
    _mm_storeu_ps(to + LANES, b);
    _mm_storeu_ps(to + 2 * LANES, c);
    _mm_storeu_ps(to + 3 * LANES, d);
    return true;
#else
    (void)q, (void)stride, (void)to;
    return false;
#endif
}

ROSLIN_INLINE bool four_by_four(const BFloat16 *, int64_t, float *) { return false; }

// The queries of up to LANES tokens as [head_dim, LANES]; lanes without a token hold zeros.
template <typename T>
ROSLIN_INLINE void turned_over(const T *q, int64_t stride, int64_t tokens, int64_t head_dim, float *to) {
    for (int64_t i = 0; i < LANES; i += 4) {
        int64_t d = 0;
        if (i + 4 <= tokens)
            while (d + 4 <= head_dim && four_by_four(q + i * stride + d, stride, to + d * LANES + i)) d += 4;
        for (; d < head_dim; ++d)
            for (int64_t n = i; n < i + 4; ++n) to[d * LANES + n] = n < tokens ? widened(q[n * stride + d]) : 0;
    }
}

// The products of LANES queries with KEYS keys, times a scale.
template <typename T>
ROSLIN_INLINE void some_scores(const float *queries, const T *const *keys, int64_t head_dim, float scale,
                               float *weights) {
    Lanes sums[KEYS];
    for (int j = 0; j < KEYS; ++j) sums[j] = all(0);
    for (int64_t d = 0; d < head_dim; ++d) {
        Lanes asked = load(queries + d * LANES);
        for (int j = 0; j < KEYS; ++j) sums[j] = sums[j] + asked * all(widened(keys[j][d]));
    }
    for (int j = 0; j < KEYS; ++j) store(weights + j * LANES, all(scale) * sums[j]);
}

// The lanes of the weights of keys `begin` to `end` that do not see them, set to `hidden`. Lane i sees its own key, `own`
// + i, those before, and with a window none that is as far back.
ROSLIN_INLINE void hide(float *weights, int64_t begin, int64_t end, int64_t own, int64_t window, float hidden) {
    for (int64_t j = begin; j < end; ++j) {
        int64_t first = j > own ? j - own : 0, last = window && j + window < own + LANES ? j + window - own : LANES;
        if (first == 0 && last == LANES) continue;
        float *place = weights + (j - begin) * LANES;
        store(place, within(load(place), first, last, hidden));
    }
}

// Scores, in powers of 2, to what each is worth beside the highest of its lane; 1 over the sum of all.
ROSLIN_INLINE Lanes weigh(float *weights, int64_t begin, int64_t end, int64_t own, int64_t window) {
    int64_t count = end - begin;
    hide(weights, begin, end, own, window, -INFINITY);
    Lanes most = load(weights);
    for (int64_t j = 1; j < count; ++j) most = higher(most, load(weights + j * LANES));
    for (int64_t j = 0; j < count; ++j) store(weights + j * LANES, power_of_2(load(weights + j * LANES) + all(-1) * most));
    hide(weights, begin, end, own, window, 0);
    // Two sums, told apart by whether a key's place in its path is even: that is the same whatever the run.
    Lanes even = all(0), odd = all(0);
    int64_t j = begin & 1;
    if (j) odd = load(weights);
    for (; j + 1 < count; j += 2) {
        even = even + load(weights + j * LANES);
        odd = odd + load(weights + (j + 1) * LANES);
    }
    if (j < count) even = even + load(weights + j * LANES);
    return all(1) / (even + odd);
}

// SOME · LANES numbers of what ASKING tokens gather.
template <int SOME, typename T>
ROSLIN_INLINE void gather_some(const float *weights, const T *values, const int32_t *places, int64_t stride,
                               int64_t count, Lanes *gathered) {
    for (int i = 0; i < ASKING * SOME; ++i) gathered[i] = all(0);
    for (int64_t j = 0; j < count; ++j) {
        const T *value = values + places[j] * stride;
        Lanes part[SOME];
        for (int n = 0; n < SOME; ++n) part[n] = load(value + n * LANES);
        for (int i = 0; i < ASKING; ++i) {
            Lanes weight = all(weights[j * LANES + i]);
            for (int n = 0; n < SOME; ++n) gathered[i * SOME + n] = gathered[i * SOME + n] + weight * part[n];
        }
    }
}

ROSLIN_INLINE void put(float *out, Lanes x) { store(out, x); }

ROSLIN_INLINE void put(BFloat16 *out, Lanes x) {
    float at[LANES];
    store(at, x);
    for (int i = 0; i < LANES; ++i) narrow(at[i], out + i);
}

template <int SOME, typename T>
ROSLIN_INLINE void gather_lanes(const float *weights, const float *shares, const T *values, const int32_t *places,
                                int64_t stride, int64_t count, T *out, int64_t out_stride, int64_t tokens) {
    Lanes gathered[ASKING * SOME];
    gather_some<SOME>(weights, values, places, stride, count, gathered);
    for (int i = 0; i < ASKING && i < tokens; ++i)
        for (int n = 0; n < SOME; ++n) put(out + i * out_stride + n * LANES, all(shares[i]) * gathered[i * SOME + n]);
}

// What up to ASKING tokens gather of `count` values at these places.
template <typename T>
ROSLIN_INLINE void gather(const float *weights, const float *shares, const T *values, const int32_t *places,
                          int64_t stride, int64_t count, int64_t head_dim, T *out, int64_t out_stride, int64_t tokens) {
    int64_t d = 0;
    for (; d + WIDE * LANES <= head_dim; d += WIDE * LANES)
        gather_lanes<WIDE>(weights, shares, values + d, places, stride, count, out + d, out_stride, tokens);
    for (; d + LANES <= head_dim; d += LANES)
        gather_lanes<1>(weights, shares, values + d, places, stride, count, out + d, out_stride, tokens);
    for (; d < head_dim; ++d)
        for (int64_t i = 0; i < ASKING && i < tokens; ++i) {
            float total = 0;
            for (int64_t j = 0; j < count; ++j) total += weights[j * LANES + i] * widened(values[places[j] * stride + d]);
            narrow(total * shares[i], out + i * out_stride + d);
        }
}

template <typename T>
void attend_lanes(const Chains &c, const int32_t *path, int64_t first, int64_t own, int64_t tokens) {
    const int64_t head_dim = c.head_dim, end = own + tokens, out_stride = c.heads * head_dim;
    const int64_t begin = c.window && own + 1 > c.window ? own + 1 - c.window : 0;
    float *queries = scratch((head_dim + end - begin + KEYS + 1) * LANES), *shares = queries + head_dim * LANES;
    float *weights = shares + LANES;
    for (int64_t head = 0; head < c.heads; ++head) {
        const int64_t group = head * c.groups / c.heads;
        const T *keys = static_cast<const T *>(c.keys) + group * head_dim;
        const T *values = static_cast<const T *>(c.values) + group * head_dim;
        const T *q = static_cast<const T *>(c.q) + first * c.q_stride + head * head_dim;
        turned_over(q, c.q_stride, tokens, head_dim, queries);
        for (int64_t j = begin; j < end; j += KEYS) {
            const T *some[KEYS];
            for (int64_t n = 0; n < KEYS; ++n) some[n] = keys + path[j + n < end ? j + n : end - 1] * c.key_stride;
            some_scores(queries, some, head_dim, c.scale * 1.44269504089f, weights + (j - begin) * LANES);
        }
        store(shares, weigh(weights, begin, end, own, c.window));
        T *out = static_cast<T *>(c.out) + first * out_stride + head * head_dim;
        for (int64_t i = 0; i < tokens; i += ASKING)
            gather(weights + i, shares + i, values, path + begin, c.value_stride, end - begin, head_dim,
                   out + i * out_stride, out_stride, tokens - i);
    }
}

template <typename T>
void attend(const Chains &c, int64_t number) {
    const Run run = c.runs[number];
    for (int64_t done = 0; done < run.count; done += LANES) {
        const int64_t tokens = run.count - done < LANES ? run.count - done : LANES;
        attend_lanes<T>(c, c.paths + run.path, run.first + done, run.before + done, tokens);
    }
}
