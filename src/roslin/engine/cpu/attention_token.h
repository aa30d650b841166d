// One token's attention in one group of heads. Included once for each level of instructions, behind lanes.h: no guard,
// no headers.

// The sums of four.
ROSLIN_INLINE void four_sums(const Lanes *x, float *to) {
#if ROSLIN_LANES > 4
    __m128 quarter[4];
    for (int i = 0; i < 4; ++i) {
        __m256 half[LANES / 8];
        std::memcpy(half, &x[i], sizeof half);
        __m256 added = LANES == 8 ? half[0] : half[0] + half[LANES / 8 - 1];
        quarter[i] = _mm256_castps256_ps128(added) + _mm256_extractf128_ps(added, 1);
    }
    __m128 low = _mm_hadd_ps(quarter[0], quarter[1]), high = _mm_hadd_ps(quarter[2], quarter[3]);
    _mm_storeu_ps(to, _mm_hadd_ps(low, high));
#else
    for (int i = 0; i < 4; ++i) to[i] = sum(x[i]);
#endif
}

// Ask for the `bytes` from `from` on, which will be read soon: hardware looks ahead no further than a page, and a block is
// no larger.
ROSLIN_INLINE void ask_for(const void *from, int64_t bytes) {
#if defined(__GNUC__)
    for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(static_cast<const char *>(from) + at);
#else
    (void)from;
    (void)bytes;
#endif
}

// The products of a query with four keys, which lie `head_dim` apart.
template <typename T>
ROSLIN_INLINE void four_products(const float *q, const T *key, int64_t head_dim, float *to) {
    Lanes sums[4] = {all(0), all(0), all(0), all(0)};
    int64_t d = 0;
    for (; d + LANES <= head_dim; d += LANES) {
        Lanes part = load(q + d);
        for (int j = 0; j < 4; ++j) sums[j] = sums[j] + part * load(key + j * head_dim + d);
    }
    four_sums(sums, to);
    for (; d < head_dim; ++d) {
        for (int j = 0; j < 4; ++j) to[j] += q[d] * widened(key[j * head_dim + d]);
    }
}

template <typename T>
ROSLIN_INLINE float product(const float *q, const T *key, int64_t head_dim) {
    Lanes sums = all(0);
    int64_t d = 0;
    for (; d + LANES <= head_dim; d += LANES) sums = sums + load(q + d) * load(key + d);
    float total = sum(sums);
    for (; d < head_dim; ++d) total += q[d] * widened(key[d]);
    return total;
}

template <int WIDE, typename T>
ROSLIN_INLINE void gather_lanes(float *gathered, float kept, const float *weights, const T *values, int64_t begin,
                                int64_t end, int64_t head_dim) {
    Lanes sums[WIDE];
    for (int i = 0; i < WIDE; ++i) sums[i] = all(kept) * load(gathered + i * LANES);
    for (int64_t j = begin; j < end; ++j) {
        Lanes weight = all(weights[j]);
        for (int i = 0; i < WIDE; ++i) sums[i] = sums[i] + weight * load(values + j * head_dim + i * LANES);
    }
    for (int i = 0; i < WIDE; ++i) store(gathered + i * LANES, sums[i]);
}

// gathered = kept · gathered + the values of places `begin` to `end`, weighed.
template <typename T>
ROSLIN_INLINE void gather(float *gathered, float kept, const float *weights, const T *values, int64_t begin,
                          int64_t end, int64_t head_dim) {
    int64_t d = 0;
    for (; d + 4 * LANES <= head_dim; d += 4 * LANES) {
        gather_lanes<4>(gathered + d, kept, weights, values + d, begin, end, head_dim);
    }
    for (; d + LANES <= head_dim; d += LANES) {
        gather_lanes<1>(gathered + d, kept, weights, values + d, begin, end, head_dim);
    }
    for (; d < head_dim; ++d) {
        float total = kept * gathered[d];
        for (int64_t j = begin; j < end; ++j) total += weights[j] * widened(values[j * head_dim + d]);
        gathered[d] = total;
    }
}

// Softmax in one sweep: what was gathered is rescaled whenever a larger score comes. Scores are in powers of 2. Keys and
// values are of type T.
template <typename T>
void attend(const Attention &a, int64_t token, int64_t group) {
    const int64_t head_dim = a.head_dim, block = a.block, shared = a.heads / a.groups;
    float *q = scratch(shared * (2 * head_dim + 2) + block), *gathered = q + shared * head_dim;
    float *highest = gathered + shared * head_dim, *totals = highest + shared, *weights = totals + shared;
    const float *asked = a.q + token * a.q_stride + group * shared * head_dim;
    for (int64_t i = 0; i < shared * head_dim; ++i) {
        q[i] = asked[i] * (a.scale * 1.44269504089f);
        gathered[i] = 0;
    }
    for (int64_t head = 0; head < shared; ++head) {
        highest[head] = -INFINITY;
        totals[head] = 0;
    }
    const int64_t length = a.lengths[token];
    const int64_t first = a.window && length > a.window ? length - a.window : 0;
    const int32_t *table = a.tables + a.slots[token] * a.table_stride;
    for (int64_t number = first / block; number * block < length; ++number) {
        const int64_t begin = first > number * block ? first - number * block : 0;
        const int64_t end = length - number * block < block ? length - number * block : block;
        const int64_t offset = (table[number] * a.groups + group) * block * head_dim;
        const T *keys = static_cast<const T *>(a.keys) + offset, *values = static_cast<const T *>(a.values) + offset;
        // The next block is asked for piece by piece, while this one is read for the first time.
        const int64_t coming = std::min(block, length - (number + 1) * block);
        const int64_t next = coming > 0 ? (table[number + 1] * a.groups + group) * block * head_dim : 0;
        for (int64_t head = 0; head < shared; ++head) {
            const float *own = q + head * head_dim;
            int64_t j = begin;
            for (; j + 4 <= end; j += 4) {
                if (head == 0 && j < coming) {
                    const int64_t place = next + j * head_dim, bytes = 4 * head_dim * sizeof(T);
                    ask_for(static_cast<const T *>(a.keys) + place, bytes);
                    ask_for(static_cast<const T *>(a.values) + place, bytes);
                }
                four_products(own, keys + j * head_dim, head_dim, weights + j);
            }
            for (; j < end; ++j) weights[j] = product(own, keys + j * head_dim, head_dim);
            float most = highest[head];
            for (j = begin; j < end; ++j) most = weights[j] > most ? weights[j] : most;
            for (j = begin; j + LANES <= end; j += LANES) {
                store(weights + j, power_of_2(load(weights + j) + all(-most)));
            }
            if (j < end) {
                float rest[LANES];
                for (int64_t i = 0; i < LANES; ++i) rest[i] = j + i < end ? weights[j + i] - most : 0;
                store(rest, power_of_2(load(rest)));
                for (int64_t i = 0; j + i < end; ++i) weights[j + i] = rest[i];
            }
            const float kept = std::exp2(highest[head] - most);
            totals[head] *= kept;
            for (j = begin; j < end; ++j) totals[head] += weights[j];
            highest[head] = most;
            gather(gathered + head * head_dim, kept, weights, values, begin, end, head_dim);
        }
    }
    float *out = a.out + (token * a.heads + group * shared) * head_dim;
    for (int64_t i = 0; i < shared * head_dim; ++i) out[i] = gathered[i] / totals[i / head_dim];
}
