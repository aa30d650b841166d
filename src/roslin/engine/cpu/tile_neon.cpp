#include <cstring>

#include "level.h"
#include "matrix.h"

// Clang before version 16 has the dot product's functions only where it builds for processors that all have them.
#if defined(ROSLIN_ARM) && (!defined(__clang__) || __clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD))

ROSLIN_BEGIN_DOT

namespace roslin {
namespace {

inline int8x16_t four_inputs(const int8_t *x) {
    int32_t bytes;
    std::memcpy(&bytes, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(bytes));
}

inline void add(float *out, int32x4_t sum, float32x4_t scale) {
    vst1q_f32(out, vfmaq_f32(vld1q_f32(out), vcvtq_f32_s32(sum), scale));
}

inline float32x4_t four_halves(const uint8_t *halves) {
    uint16_t bits[4];
    std::memcpy(bits, halves, 8);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(bits)));
}

void int8_row(const uint8_t *w, int64_t blocks, const Rows &x, int64_t row, float *sums) {
    const uint8x16_t sign = vdupq_n_u8(128);
    const int8_t *high = x.high + row * x.padded, *low = x.low + row * x.padded;
    for (int64_t b = 0; b < blocks; ++b) {
        int32x4_t h[4], l[4];
        for (int q = 0; q < 4; ++q) h[q] = l[q] = vdupq_n_s32(0);
        for (int64_t k = b * 64; k < b * 64 + 64; k += 4, w += 64) {
            int8x16_t above = four_inputs(high + k), below = four_inputs(low + k);
            for (int q = 0; q < 4; ++q) {
                int8x16_t codes = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + 16 * q), sign));
                h[q] = vdotq_s32(h[q], codes, above);
                l[q] = vdotq_s32(l[q], codes, below);
            }
        }
        float32x4_t scale = vdupq_n_f32(x.scale[row * x.blocks + b]);
        for (int q = 0; q < 4; ++q) add(sums + 4 * q, vaddq_s32(vshlq_n_s32(h[q], 8), l[q]), scale);
    }
}

void int4_row(const uint8_t *w, int64_t blocks, int64_t block, const Rows &x, int64_t row, float *sums) {
    const uint8x16_t low_half = vdupq_n_u8(15);
    const int8_t *high = x.high + row * x.padded, *low = x.low + row * x.padded;
    for (int64_t b = 0; b < blocks; ++b) {
        const uint8_t *halves = w;
        w += 64;
        int32x4_t h[4], l[4];
        for (int q = 0; q < 4; ++q) h[q] = l[q] = vdupq_n_s32(0);
        for (int64_t k = b * block; k < (b + 1) * block; k += 8, w += 64) {
            int8x16_t above = four_inputs(high + k), below = four_inputs(low + k);
            int8x16_t next_above = four_inputs(high + k + 4), next_below = four_inputs(low + k + 4);
            for (int q = 0; q < 4; ++q) {
                uint8x16_t codes = vld1q_u8(w + 16 * q);
                int8x16_t one = vreinterpretq_s8_u8(vandq_u8(codes, low_half));
                int8x16_t two = vreinterpretq_s8_u8(vshrq_n_u8(codes, 4));
                h[q] = vdotq_s32(vdotq_s32(h[q], one, above), two, next_above);
                l[q] = vdotq_s32(vdotq_s32(l[q], one, below), two, next_below);
            }
        }
        int64_t place = row * x.blocks + b;
        float scale = x.scale[place], all = scale * static_cast<float>(x.sum[place]);
        for (int q = 0; q < 4; ++q) {
            float *out = sums + 4 * q;
            add(out, vaddq_s32(vshlq_n_s32(h[q], 8), l[q]), vmulq_n_f32(four_halves(halves + 8 * q), scale));
            vst1q_f32(out, vfmaq_n_f32(vld1q_f32(out), four_halves(halves + 32 + 8 * q), all));
        }
    }
}

void bf16_row(const uint8_t *w, const Rows &x, int64_t row, float *sums) {
    const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
    const float *plain = x.plain + row * x.padded;
    float32x4_t total[4];
    for (int q = 0; q < 4; ++q) total[q] = vld1q_f32(sums + 4 * q);
    for (int64_t k = 0; k < x.padded; k += 2, w += 64)
        for (int q = 0; q < 4; ++q) {
            uint32x4_t both = vreinterpretq_u32_u8(vld1q_u8(w + 16 * q));
            total[q] = vfmaq_n_f32(total[q], vreinterpretq_f32_u32(vshlq_n_u32(both, 16)), plain[k]);
            total[q] = vfmaq_n_f32(total[q], vreinterpretq_f32_u32(vandq_u32(both, upper)), plain[k + 1]);
        }
    for (int q = 0; q < 4; ++q) vst1q_f32(sums + 4 * q, total[q]);
}

void fp32_row(const uint8_t *w, const Rows &x, int64_t row, float *sums) {
    const float *plain = x.plain + row * x.padded;
    float32x4_t total[4];
    for (int q = 0; q < 4; ++q) total[q] = vld1q_f32(sums + 4 * q);
    for (int64_t k = 0; k < x.padded; ++k, w += 64)
        for (int q = 0; q < 4; ++q)
            total[q] = vfmaq_n_f32(total[q], vreinterpretq_f32_u8(vld1q_u8(w + 16 * q)), plain[k]);
    for (int q = 0; q < 4; ++q) vst1q_f32(sums + 4 * q, total[q]);
}

void tile_rows(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    const uint8_t *w = m.data + tile * m.tile_bytes();
    for (int64_t row = first; row < first + rows; ++row, sums += TILE) {
        switch (m.kind) {
            case INT8: int8_row(w, m.blocks(), x, row, sums); break;
            case INT4: int4_row(w, m.blocks(), m.block, x, row, sums); break;
            case BF16: bf16_row(w, x, row, sums); break;
            default: fp32_row(w, x, row, sums);
        }
    }
}

}  // namespace
}  // namespace roslin

ROSLIN_END

namespace roslin {
TileProduct neon_tile_product(Kind) { return tile_rows; }
}  // namespace roslin

#else

namespace roslin {
TileProduct neon_tile_product(Kind) { return nullptr; }
}  // namespace roslin

#endif
