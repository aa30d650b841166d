#include <cstring>

#include "level.h"
#include "matrix.h"

#if defined(ROSLIN_X86)

ROSLIN_BEGIN_AVX2

namespace roslin {
namespace {

inline __m256i four_inputs(const int16_t *x) {
    int64_t bytes;
    std::memcpy(&bytes, x, 8);
    return _mm256_set1_epi64x(bytes);
}

inline __m256i widened(const uint8_t *codes) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(codes)));
}

// Two sums each of outputs 0 to 3 in `a`, of 4 to 7 in `b`: added, as eight outputs in order.
inline __m256i eight_outputs(__m256i a, __m256i b) {
    return _mm256_permute4x64_epi64(_mm256_hadd_epi32(a, b), 0xd8);
}

// A quarter of a step, sixteen codes, is four outputs of four inputs, which meet the same four numbers.
template <int R>
void int8_rows(const uint8_t *w, int64_t blocks, const Rows &x, int64_t first, float *sums) {
    for (int64_t b = 0; b < blocks; ++b) {
        __m256i sum[R][4];
        for (int r = 0; r < R; ++r)
            for (int q = 0; q < 4; ++q) sum[r][q] = _mm256_setzero_si256();
        for (int64_t k = b * 64; k < b * 64 + 64; k += 4, w += 64)
            for (int q = 0; q < 4; ++q) {
                __m256i codes = widened(w + 16 * q);
                for (int r = 0; r < R; ++r) {
                    __m256i inputs = four_inputs(x.whole + (first + r) * x.padded + k);
                    sum[r][q] = _mm256_add_epi32(sum[r][q], _mm256_madd_epi16(codes, inputs));
                }
            }
        for (int r = 0; r < R; ++r) {
            int64_t place = (first + r) * x.blocks + b;
            __m256i zero = _mm256_set1_epi32(128 * x.sum[place]);
            for (int half = 0; half < 2; ++half) {
                float *out = sums + r * TILE + 8 * half;
                __m256i both = _mm256_sub_epi32(eight_outputs(sum[r][2 * half], sum[r][2 * half + 1]), zero);
                _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_cvtepi32_ps(both), _mm256_set1_ps(x.scale[place]),
                                                      _mm256_loadu_ps(out)));
            }
        }
    }
}

template <int R>
void int4_rows(const uint8_t *w, int64_t blocks, int64_t block, const Rows &x, int64_t first, float *sums) {
    const __m128i low_half = _mm_set1_epi8(15);
    for (int64_t b = 0; b < blocks; ++b) {
        const __m128i *halves = reinterpret_cast<const __m128i *>(w);
        w += 64;
        __m256i sum[R][4];
        for (int r = 0; r < R; ++r)
            for (int q = 0; q < 4; ++q) sum[r][q] = _mm256_setzero_si256();
        for (int64_t k = b * block; k < (b + 1) * block; k += 8, w += 64)
            for (int q = 0; q < 4; ++q) {
                __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i *>(w + 16 * q));
                __m256i one = _mm256_cvtepu8_epi16(_mm_and_si128(codes, low_half));
                __m256i two = _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(codes, 4), low_half));
                for (int r = 0; r < R; ++r) {
                    const int16_t *inputs = x.whole + (first + r) * x.padded + k;
                    __m256i both = _mm256_add_epi32(_mm256_madd_epi16(one, four_inputs(inputs)),
                                                    _mm256_madd_epi16(two, four_inputs(inputs + 4)));
                    sum[r][q] = _mm256_add_epi32(sum[r][q], both);
                }
            }
        for (int r = 0; r < R; ++r) {
            int64_t place = (first + r) * x.blocks + b;
            float scale = x.scale[place], all = scale * static_cast<float>(x.sum[place]);
            for (int half = 0; half < 2; ++half) {
                float *out = sums + r * TILE + 8 * half;
                __m256 scales = _mm256_cvtph_ps(_mm_loadu_si128(halves + half));
                __m256 shifts = _mm256_cvtph_ps(_mm_loadu_si128(halves + 2 + half));
                __m256 both = _mm256_cvtepi32_ps(eight_outputs(sum[r][2 * half], sum[r][2 * half + 1]));
                __m256 total = _mm256_fmadd_ps(both, _mm256_mul_ps(_mm256_set1_ps(scale), scales),
                                               _mm256_loadu_ps(out));
                _mm256_storeu_ps(out, _mm256_fmadd_ps(_mm256_set1_ps(all), shifts, total));
            }
        }
    }
}

template <int R>
void bf16_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000));
    __m256 total[R][2];
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) total[r][half] = _mm256_loadu_ps(sums + r * TILE + 8 * half);
    for (int64_t k = 0; k < x.padded; k += 2, w += 64)
        for (int half = 0; half < 2; ++half) {
            __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 32 * half));
            __m256 one = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
            __m256 two = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
            for (int r = 0; r < R; ++r) {
                const float *inputs = x.plain + (first + r) * x.padded + k;
                total[r][half] = _mm256_fmadd_ps(one, _mm256_set1_ps(inputs[0]), total[r][half]);
                total[r][half] = _mm256_fmadd_ps(two, _mm256_set1_ps(inputs[1]), total[r][half]);
            }
        }
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) _mm256_storeu_ps(sums + r * TILE + 8 * half, total[r][half]);
}

// 2^-8 of eight numbers in FP8.
inline __m256 eight_of_fp8(const uint8_t *w) {
    __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(w)));
    return _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(static_cast<short>(0xbfff))));
}

template <int R>
void fp8_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    __m256 total[R][2];
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) total[r][half] = _mm256_loadu_ps(sums + r * TILE + 8 * half);
    for (int64_t k = 0; k < x.padded; ++k, w += TILE) {
        __m256 one = eight_of_fp8(w), two = eight_of_fp8(w + 8);
        for (int r = 0; r < R; ++r) {
            __m256 input = _mm256_set1_ps(x.plain[(first + r) * x.padded + k]);
            total[r][0] = _mm256_fmadd_ps(one, input, total[r][0]);
            total[r][1] = _mm256_fmadd_ps(two, input, total[r][1]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) _mm256_storeu_ps(sums + r * TILE + 8 * half, total[r][half]);
}

template <int R>
void fp32_rows(const uint8_t *start, const Rows &x, int64_t first, float *sums) {
    const float *w = reinterpret_cast<const float *>(start);
    __m256 total[R][2];
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) total[r][half] = _mm256_loadu_ps(sums + r * TILE + 8 * half);
    for (int64_t k = 0; k < x.padded; ++k, w += TILE) {
        __m256 one = _mm256_loadu_ps(w), two = _mm256_loadu_ps(w + 8);
        for (int r = 0; r < R; ++r) {
            __m256 input = _mm256_set1_ps(x.plain[(first + r) * x.padded + k]);
            total[r][0] = _mm256_fmadd_ps(one, input, total[r][0]);
            total[r][1] = _mm256_fmadd_ps(two, input, total[r][1]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) _mm256_storeu_ps(sums + r * TILE + 8 * half, total[r][half]);
}

#include "of_rows.inl"

// Sixteen registers hold the sums of two rows, and what is read.
void tile_rows(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    int64_t r = 0;
    for (; r + 2 <= rows; r += 2) of_rows<2>(m, tile, x, first + r, sums + r * TILE);
    if (r < rows) of_rows<1>(m, tile, x, first + r, sums + r * TILE);
}

}  // namespace
}  // namespace roslin

ROSLIN_END

namespace roslin {
TileProduct avx2_tile_product(Kind) { return tile_rows; }
}  // namespace roslin

#else

namespace roslin {
TileProduct avx2_tile_product(Kind) { return nullptr; }
}  // namespace roslin

#endif
