// Products of a tile with rows, two of them at a time: of the 32 registers their sums take 16.

#include <cstring>

#include "level.h"
#include "matrix.h"

#if defined(ROSLIN_ARM)

namespace roslin {
namespace {

// Sums of R rows [R, 16], in registers while `steps` adds to them.
template <int R, typename Steps>
inline void summed(float *sums, Steps &&steps) {
    float32x4_t total[R][4];
    for (int r = 0; r < R; ++r)
        for (int q = 0; q < 4; ++q) total[r][q] = vld1q_f32(sums + r * TILE + 4 * q);
    steps(total);
    for (int r = 0; r < R; ++r)
        for (int q = 0; q < 4; ++q) vst1q_f32(sums + r * TILE + 4 * q, total[r][q]);
}

template <int R>
void bf16_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
    const float *plain = x.plain + first * x.padded;
    summed<R>(sums, [&](float32x4_t (*total)[4]) {
        for (int64_t k = 0; k < x.padded; k += 2, w += 64)
            for (int q = 0; q < 4; ++q) {
                uint32x4_t both = vreinterpretq_u32_u8(vld1q_u8(w + 16 * q));
                float32x4_t one = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
                float32x4_t two = vreinterpretq_f32_u32(vandq_u32(both, upper));
                for (int r = 0; r < R; ++r) {
                    total[r][q] = vfmaq_n_f32(total[r][q], one, plain[r * x.padded + k]);
                    total[r][q] = vfmaq_n_f32(total[r][q], two, plain[r * x.padded + k + 1]);
                }
            }
    });
}

template <int R>
void fp32_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const float *plain = x.plain + first * x.padded;
    summed<R>(sums, [&](float32x4_t (*total)[4]) {
        for (int64_t k = 0; k < x.padded; ++k, w += 64)
            for (int q = 0; q < 4; ++q) {
                float32x4_t numbers = vreinterpretq_f32_u8(vld1q_u8(w + 16 * q));
                for (int r = 0; r < R; ++r) total[r][q] = vfmaq_n_f32(total[r][q], numbers, plain[r * x.padded + k]);
            }
    });
}

template <int R>
void fp8_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const int16x8_t places = vdupq_n_s16(static_cast<int16_t>(0xbfff));
    const float *plain = x.plain + first * x.padded;
    summed<R>(sums, [&](float32x4_t (*total)[4]) {
        for (int64_t k = 0; k < x.padded; ++k, w += TILE)
            for (int half = 0; half < 2; ++half) {
                int16x8_t wide = vmovl_s8(vreinterpret_s8_u8(vld1_u8(w + 8 * half)));
                float16x8_t halves = vreinterpretq_f16_s16(vandq_s16(vshlq_n_s16(wide, 7), places));
                float32x4_t one = vcvt_f32_f16(vget_low_f16(halves)), two = vcvt_f32_f16(vget_high_f16(halves));
                for (int r = 0; r < R; ++r) {
                    total[r][2 * half] = vfmaq_n_f32(total[r][2 * half], one, plain[r * x.padded + k]);
                    total[r][2 * half + 1] = vfmaq_n_f32(total[r][2 * half + 1], two, plain[r * x.padded + k]);
                }
            }
    });
}

template <int R>
void plain_rows(const Matrix &m, int64_t tile, const Rows &x, int64_t first, float *sums) {
    const uint8_t *w = m.data + tile * m.tile_bytes();
    if (m.kind == BF16) return bf16_rows<R>(w, x, first, sums);
    if (m.kind == FP8) return fp8_rows<R>(w, x, first, sums);
    fp32_rows<R>(w, x, first, sums);
}

void plain_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) plain_rows<2>(m, tile, x, first + r, sums + r * TILE);
    if (r < rows) plain_rows<1>(m, tile, x, first + r, sums + r * TILE);
}

}  // namespace
}  // namespace roslin

// Clang before version 16 has the dot product's functions only where it builds for processors that all have them.
#if !defined(__clang__) || __clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD)

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

// `h` and `l` are the sums of the rows' upper and lower bytes.
inline int32x4_t whole_of(int32x4_t h, int32x4_t l) { return vaddq_s32(vshlq_n_s32(h, 8), l); }

template <int R>
void int8_rows(const uint8_t *w, int64_t blocks, const Rows &x, int64_t first, float *sums) {
    const uint8x16_t sign = vdupq_n_u8(128);
    for (int64_t b = 0; b < blocks; ++b) {
        int32x4_t h[R][4], l[R][4];
        for (int r = 0; r < R; ++r)
            for (int q = 0; q < 4; ++q) h[r][q] = l[r][q] = vdupq_n_s32(0);
        for (int64_t k = b * 64; k < b * 64 + 64; k += 4, w += 64) {
            int8x16_t codes[4];
            for (int q = 0; q < 4; ++q) codes[q] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + 16 * q), sign));
            for (int r = 0; r < R; ++r) {
                int64_t at = (first + r) * x.padded + k;
                int8x16_t above = four_inputs(x.high + at), below = four_inputs(x.low + at);
                for (int q = 0; q < 4; ++q) {
                    h[r][q] = vdotq_s32(h[r][q], codes[q], above);
                    l[r][q] = vdotq_s32(l[r][q], codes[q], below);
                }
            }
        }
        for (int r = 0; r < R; ++r) {
            float32x4_t scale = vdupq_n_f32(x.scale[(first + r) * x.blocks + b]);
            for (int q = 0; q < 4; ++q) add(sums + r * TILE + 4 * q, whole_of(h[r][q], l[r][q]), scale);
        }
    }
}

template <int R>
void int4_rows(const uint8_t *w, int64_t blocks, int64_t block, const Rows &x, int64_t first, float *sums) {
    const uint8x16_t low_half = vdupq_n_u8(15);
    for (int64_t b = 0; b < blocks; ++b) {
        const uint8_t *halves = w;
        w += 64;
        int32x4_t h[R][4], l[R][4];
        for (int r = 0; r < R; ++r)
            for (int q = 0; q < 4; ++q) h[r][q] = l[r][q] = vdupq_n_s32(0);
        for (int64_t k = b * block; k < (b + 1) * block; k += 8, w += 64) {
            const int8_t *high = x.high + first * x.padded + k, *low = x.low + first * x.padded + k;
            for (int q = 0; q < 4; ++q) {
                uint8x16_t codes = vld1q_u8(w + 16 * q);
                int8x16_t one = vreinterpretq_s8_u8(vandq_u8(codes, low_half));
                int8x16_t two = vreinterpretq_s8_u8(vshrq_n_u8(codes, 4));
                for (int r = 0; r < R; ++r) {
                    int64_t at = r * x.padded;
                    h[r][q] = vdotq_s32(h[r][q], one, four_inputs(high + at));
                    h[r][q] = vdotq_s32(h[r][q], two, four_inputs(high + at + 4));
                    l[r][q] = vdotq_s32(l[r][q], one, four_inputs(low + at));
                    l[r][q] = vdotq_s32(l[r][q], two, four_inputs(low + at + 4));
                }
            }
        }
        for (int r = 0; r < R; ++r) {
            int64_t place = (first + r) * x.blocks + b;
            float scale = x.scale[place], all = scale * static_cast<float>(x.sum[place]);
            for (int q = 0; q < 4; ++q) {
                float *out = sums + r * TILE + 4 * q;
                add(out, whole_of(h[r][q], l[r][q]), vmulq_n_f32(four_halves(halves + 8 * q), scale));
                vst1q_f32(out, vfmaq_n_f32(vld1q_f32(out), four_halves(halves + 32 + 8 * q), all));
            }
        }
    }
}

template <int R>
void quantised_rows(const Matrix &m, int64_t tile, const Rows &x, int64_t first, float *sums) {
    const uint8_t *w = m.data + tile * m.tile_bytes();
    if (m.kind == INT8) return int8_rows<R>(w, m.blocks(), x, first, sums);
    int4_rows<R>(w, m.blocks(), m.block, x, first, sums);
}

void quantised_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) quantised_rows<2>(m, tile, x, first + r, sums + r * TILE);
    if (r < rows) quantised_rows<1>(m, tile, x, first + r, sums + r * TILE);
}

}  // namespace
}  // namespace roslin

ROSLIN_END

#define ROSLIN_QUANTISED quantised_tile
#else
#define ROSLIN_QUANTISED nullptr
#endif

namespace roslin {

TileProduct neon_tile_product(Kind kind) {
    if (kind != INT8 && kind != INT4) return plain_tile;
    return level() == NEON_DOT ? ROSLIN_QUANTISED : nullptr;
}

}  // namespace roslin

#else

namespace roslin {
TileProduct neon_tile_product(Kind) { return nullptr; }
}  // namespace roslin

#endif
