// One token's attention in one group of heads. Included once for each level of instructions, which says how many numbers
// one of its registers holds (ROSLIN_LANES): no guard, no headers.

constexpr int LANES = ROSLIN_LANES;

#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t Half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
#define ROSLIN_INLINE static inline __attribute__((always_inline))

ROSLIN_INLINE Lanes load(const float *from) { return *reinterpret_cast<const Lanes *>(from); }

ROSLIN_INLINE Lanes load(const BFloat16 *from) {
    return reinterpret_cast<Lanes>(__builtin_convertvector(*reinterpret_cast<const Half *>(from), Whole) << 16);
}

ROSLIN_INLINE void store(float *to, Lanes x) { *reinterpret_cast<Lanes *>(to) = x; }

ROSLIN_INLINE Lanes all(float x) { return x - Lanes{}; }

// 2^x for x up to 0, to 1e-7 of it: 2 to the nearest whole number times a Taylor polynomial of what is left.
ROSLIN_INLINE Lanes power_of_2(Lanes x) {
    x = x < -126.0f ? all(-126.0f) : x;
    const Lanes magic = all(12582912.0f);  // 1.5 · 2^23: what is added to it is rounded to a whole number
    Lanes near = x + magic;
    Lanes y = (x - (near - magic)) * 0.69314718056f;
    Lanes p = y * (1.0f / 5040) + 1.0f / 720;
    p = p * y + 1.0f / 120;
    p = p * y + 1.0f / 24;
    p = p * y + 1.0f / 6;
    p = p * y + 0.5f;
    p = p * y + 1.0f;
    p = p * y + 1.0f;
    Whole exponent = reinterpret_cast<Whole>(near) - reinterpret_cast<Whole>(magic);
    return reinterpret_cast<Lanes>(reinterpret_cast<Whole>(p) + (exponent << 23));
}
#else
#define ROSLIN_INLINE static inline

struct Lanes {
    float at[LANES];
};

template <typename T>
ROSLIN_INLINE Lanes load(const T *from) {
    Lanes x;
    for (int i = 0; i < LANES; ++i) x.at[i] = widened(from[i]);
    return x;
}

ROSLIN_INLINE void store(float *to, Lanes x) { std::memcpy(to, x.at, sizeof x.at); }

ROSLIN_INLINE Lanes all(float y) {
    Lanes x;
    for (int i = 0; i < LANES; ++i) x.at[i] = y;
    return x;
}

ROSLIN_INLINE Lanes operator+(Lanes x, Lanes y) {
    for (int i = 0; i < LANES; ++i) x.at[i] += y.at[i];
    return x;
}

ROSLIN_INLINE Lanes operator*(Lanes x, Lanes y) {
    for (int i = 0; i < LANES; ++i) x.at[i] *= y.at[i];
    return x;
}

ROSLIN_INLINE Lanes power_of_2(Lanes x) {
    for (int i = 0; i < LANES; ++i) x.at[i] = std::exp2(x.at[i]);
    return x;
}
#endif

ROSLIN_INLINE float sum(Lanes x) {
    float at[LANES];
    store(at, x);
    for (int half = LANES / 2; half; half /= 2) {
        for (int i = 0; i < half; ++i) at[i] += at[i + half];
    }
    return at[0];
}

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

// Softmax in one sweep: what was gathered is rescaled whenever a larger score comes. Scores are in powers of 2.
template <typename T>
void attend(const Attention &a, int64_t token, int64_t group) {
    const int64_t head_dim = a.head_dim, block = a.block, shared = a.heads / a.groups;
    float *q = scratch(shared * (2 * head_dim + 2) + block), *gathered = q + shared * head_dim;
    float *highest = gathered + shared * head_dim, *totals = highest + shared, *weights = totals + shared;
    const T *asked = static_cast<const T *>(a.q) + token * a.q_stride + group * shared * head_dim;
    for (int64_t i = 0; i < shared * head_dim; ++i) {
        q[i] = widened(asked[i]) * (a.scale * 1.44269504089f);
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
        for (int64_t head = 0; head < shared; ++head) {
            const float *own = q + head * head_dim;
            int64_t j = begin;
            for (; j + 4 <= end; j += 4) four_products(own, keys + j * head_dim, head_dim, weights + j);
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
    T *out = static_cast<T *>(a.out) + (token * a.heads + group * shared) * head_dim;
    for (int64_t i = 0; i < shared * head_dim; ++i) narrow(gathered[i] / totals[i / head_dim], out + i);
}

#undef ROSLIN_INLINE
#undef ROSLIN_LANES
