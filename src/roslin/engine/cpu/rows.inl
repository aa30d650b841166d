// Included by rows.cpp once for each level, in a namespace of its own, between that level's marks. The loops are
// written so that a compiler can make vectors of them without reordering a sum: LANES partial sums each.

constexpr int64_t LANES = 16;

inline float total_of(const float *lanes) {
    float sums[LANES];
    for (int64_t i = 0; i < LANES; ++i) sums[i] = lanes[i];
    for (int64_t width = LANES / 2; width; width /= 2)
        for (int64_t i = 0; i < width; ++i) sums[i] += sums[i + width];
    return sums[0];
}

inline float sum_of(const float *x, int64_t count) {
    float lanes[LANES] = {};
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (int64_t i = 0; i < LANES; ++i) lanes[i] += x[k + i];
    for (int64_t i = 0; k + i < count; ++i) lanes[i] += x[k + i];
    return total_of(lanes);
}

inline float squares_around(const float *x, int64_t count, float mean) {
    float lanes[LANES] = {};
    int64_t k = 0;
    for (; k + LANES <= count; k += LANES)
        for (int64_t i = 0; i < LANES; ++i) lanes[i] += (x[k + i] - mean) * (x[k + i] - mean);
    for (int64_t i = 0; k + i < count; ++i) lanes[i] += (x[k + i] - mean) * (x[k + i] - mean);
    return total_of(lanes);
}

// e^x to about 2 units in the last place: 2^n times a polynomial of the rest.
inline float exponential(float x) {
    constexpr float ROUND = 12582912.0f;  // 1.5 · 2^23: adding it rounds to a whole number
    float clamped = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float n = (clamped * 1.44269504f + ROUND) - ROUND;
    float r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    union {
        int32_t bits;
        float value;
    } power = {(static_cast<int32_t>(n) + 127) << 23};
    return p * power.value;
}

// Half of 1 + erf(x / sqrt 2), by formula 7.1.26 of Abramowitz and Stegun: off by at most 1e-7.
inline float normal_share(float x) {
    float a = (x < 0 ? -x : x) * 0.70710678118f;
    float t = 1.0f / (1.0f + 0.3275911f * a);
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    float tail = 0.5f * p * t * exponential(-a * a);
    return x < 0 ? tail : 1.0f - tail;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

inline void activate(float *x, int64_t count, int32_t kind) {
    if (kind == GELU)
        for (int64_t k = 0; k < count; ++k) x[k] *= normal_share(x[k]);
    if (kind == GELU_TANH)
        for (int64_t k = 0; k < count; ++k) {
            float inner = 0.7978845608f * (x[k] + 0.044715f * x[k] * x[k] * x[k]);
            x[k] *= sigmoid(2.0f * inner);  // half of 1 + tanh
        }
    if (kind == SILU)
        for (int64_t k = 0; k < count; ++k) x[k] *= sigmoid(x[k]);
}

inline void normed(const Input &in, const float *x, float *out) {
    int64_t n = in.width;
    float mean = in.norm == LAYER_NORM ? sum_of(x, n) / n : 0.0f;
    float steep = 1.0f / std::sqrt(squares_around(x, n, mean) / n + in.eps);
    for (int64_t k = 0; k < n; ++k) out[k] = (x[k] - mean) * steep;
    if (in.gain)
        for (int64_t k = 0; k < n; ++k) out[k] *= in.gain[k];
    if (in.shift)
        for (int64_t k = 0; k < n; ++k) out[k] += in.shift[k];
}

// Numbers as whole ones of at most ±32,512, so that both bytes are signed ones. A block with a number that is none has
// a scale that is none.
inline void block_in_whole_numbers(const float *x, int64_t count, int16_t *whole, int8_t *high, int8_t *low,
                                   float *scale, int32_t *sum) {
    float most[LANES] = {}, probe[LANES] = {};
    for (int64_t k = 0; k < count; k += LANES)
        for (int64_t i = 0; i < LANES; ++i) {
            float size = x[k + i] < 0 ? -x[k + i] : x[k + i];
            most[i] = size > most[i] ? size : most[i];
            probe[i] += x[k + i] * 0.0f;
        }
    float largest = 0;
    for (int64_t i = 0; i < LANES; ++i) largest = most[i] > largest ? most[i] : largest;
    float strange = total_of(probe);
    *scale = largest / 32512.0f + strange;
    bool usable = strange == 0.0f && largest > 1e-30f;
    float inverse = usable ? 32512.0f / largest : 0.0f;
    int32_t sums[LANES] = {};
    for (int64_t k = 0; k < count; k += LANES)
        for (int64_t i = 0; i < LANES; ++i) {
            float number = usable ? x[k + i] * inverse : 0.0f;
            int32_t q = static_cast<int32_t>(number + (number < 0 ? -0.5f : 0.5f));
            int32_t upper = (q + 128) >> 8;
            whole[k + i] = static_cast<int16_t>(q);
            high[k + i] = static_cast<int8_t>(upper);
            low[k + i] = static_cast<int8_t>(q - upper * 256);
            sums[i] += q;
        }
    int32_t all = 0;
    for (int64_t i = 0; i < LANES; ++i) all += sums[i];
    *sum = all;
}

// To bfloat16, to the nearest, halfway to even; a NaN stays one.
inline void in_bfloat16(const float *x, int64_t count, uint16_t *rounded) {
    for (int64_t k = 0; k < count; ++k) {
        union {
            float value;
            uint32_t bits;
        } both = {x[k]};
        uint32_t upper = both.value != both.value ? 0x7fc0 : (both.bits + 0x7fff + (both.bits >> 16 & 1)) >> 16;
        rounded[k] = static_cast<uint16_t>(upper);
    }
}

inline void prepare(const Input &in, int64_t row, const Prepared &to) {
    const float *x = in.x + row * in.stride;
    float *plain = to.plain + row * to.padded;
    if (in.norm != NO_NORM) {
        normed(in, x, plain);
    } else {
        for (int64_t k = 0; k < in.width; ++k) plain[k] = x[k];
    }
    if (in.gate != NO_ACTIVATION) {
        activate(plain, in.width, in.gate);
        for (int64_t k = 0; k < in.width; ++k) plain[k] *= x[in.width + k];
    }
    for (int64_t k = in.width; k < to.padded; ++k) plain[k] = 0;
    if (to.rounded) in_bfloat16(plain, to.padded, to.rounded + row * to.padded);
    if (!to.block) return;
    int64_t blocks = to.padded / to.block;
    for (int64_t b = 0; b < blocks; ++b) {
        int64_t at = row * to.padded + b * to.block;
        block_in_whole_numbers(to.plain + at, to.block, to.whole + at, to.high + at, to.low + at,
                               to.scale + row * blocks + b, to.sum + row * blocks + b);
    }
}

inline void turn(const Turn &how, int64_t row, float *heads) {
    const float *cos = how.cos + row * how.stride, *sin = how.sin + row * how.stride;
    int64_t half = how.dims / 2;
    for (int64_t head = 0; head < how.heads; ++head) {
        float *x = heads + head * how.head_dim;
        if (how.interleaved) {
            for (int64_t k = 0; k < how.dims; k += 2) {
                float a = x[k], b = x[k + 1];
                x[k] = a * cos[k] + b * sin[k];
                x[k + 1] = b * cos[k + 1] + a * sin[k + 1];
            }
        } else {
            for (int64_t k = 0; k < half; ++k) {
                float a = x[k], b = x[k + half];
                x[k] = a * cos[k] + b * sin[k];
                x[k + half] = b * cos[k + half] + a * sin[k + half];
            }
        }
    }
}

template <bool WHOLE>
inline void finish_rows(const Finish &to, float *sums, const float *others, int64_t rows) {
    const int64_t width = WHOLE ? TILE : to.width;
    if (to.bias)
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t o = 0; o < width; ++o) sums[r * TILE + o] += to.bias[o];
    if (to.activation != NO_ACTIVATION) activate(sums, rows * TILE, to.activation);
    for (int64_t r = 0; r < rows; ++r) {
        float *x = sums + r * TILE, *out = to.out + r * to.out_stride;
        if (to.residual)
            for (int64_t o = 0; o < width; ++o) x[o] += to.residual[r * to.residual_stride + o];
        if (others)
            for (int64_t o = 0; o < width; ++o) x[o] += others[r * TILE + o];
        for (int64_t o = 0; o < width; ++o) out[o] = x[o];
    }
}

inline void finish(const Finish &to, float *sums, const float *others, int64_t rows) {
    if (to.width == TILE) return finish_rows<true>(to, sums, others, rows);
    finish_rows<false>(to, sums, others, rows);
}

// A NaN among the logits is no highest, but makes the sum one. The sum is that of torch's log_softmax, number by number
// in 16 lanes: what that loses of an exact one, some 1e-6, it loses too, or long texts would part from those of others.
inline Outlook outlook(const float *logits, int64_t count) {
    float lanes[LANES], sums[LANES] = {};
    int64_t whole = count - count % LANES, first = 0;
    for (int64_t i = 0; i < LANES; ++i) lanes[i] = -INFINITY;
    for (int64_t k = 0; k < whole; k += LANES)
        for (int64_t i = 0; i < LANES; ++i) lanes[i] = logits[k + i] > lanes[i] ? logits[k + i] : lanes[i];
    for (int64_t k = whole; k < count; ++k) lanes[0] = logits[k] > lanes[0] ? logits[k] : lanes[0];
    float most = lanes[0];
    for (int64_t i = 1; i < LANES; ++i) most = lanes[i] > most ? lanes[i] : most;
    for (int64_t k = 0; k < whole; k += LANES)
        for (int64_t i = 0; i < LANES; ++i) sums[i] += exponential(logits[k + i] - most);
    for (int64_t k = whole; k < count; ++k) sums[k - whole] += exponential(logits[k] - most);
    for (bool found = false; first < whole && !found; first += found ? 0 : LANES)
        for (int64_t i = 0; i < LANES; ++i) found |= logits[first + i] == most;
    while (first < count && logits[first] != most) ++first;
    return {most, total_of(sums), first};
}

inline void weights(const float *logits, int64_t count, float most, float steep, float *out) {
    for (int64_t k = 0; k < count; ++k) {
        float far = (logits[k] - most) * steep;
        float weight = exponential(far);
        out[k] = far >= -85.0f ? weight : 0.0f;  // what is no number weighs nothing
    }
}
