#include <cstring>

#include "level.h"
#include "matrix.h"

#if defined(ROSLIN_X86)

ROSLIN_BEGIN_VNNI

namespace roslin {
namespace {

inline __m512i four_inputs(const int8_t *x) {
    int32_t bytes;
    std::memcpy(&bytes, x, 4);
    return _mm512_set1_epi32(bytes);
}

// While a tile is read, the one behind it is asked for: hardware stops looking ahead at the end of each page.
constexpr int64_t AHEAD = 2048;

// One row alone would wait for each sum before it can add to it: it has several, which are exact and so may be added
// in any order.
template <int R, int WAYS = R == 1 ? 4 : R == 2 ? 2 : 1>
void int8_rows(const uint8_t *w, int64_t blocks, const Rows &x, int64_t first, float *sums) {
    const int8_t *high[R], *low[R];
    __m512 total[R];
    for (int r = 0; r < R; ++r) {
        high[r] = x.high + (first + r) * x.padded;
        low[r] = x.low + (first + r) * x.padded;
        total[r] = _mm512_loadu_ps(sums + r * TILE);
    }
    for (int64_t b = 0; b < blocks; ++b) {
        __m512i h[R][WAYS], l[R][WAYS];
        for (int r = 0; r < R; ++r)
            for (int way = 0; way < WAYS; ++way) h[r][way] = l[r][way] = _mm512_setzero_si512();
        for (int64_t k = b * 64; k < b * 64 + 64; k += 4 * WAYS, w += 64 * WAYS)
            for (int way = 0; way < WAYS; ++way) {
                _mm_prefetch(reinterpret_cast<const char *>(w + 64 * way + AHEAD), _MM_HINT_T0);
                __m512i codes = _mm512_loadu_si512(w + 64 * way);
                for (int r = 0; r < R; ++r) {
                    h[r][way] = _mm512_dpbusd_epi32(h[r][way], codes, four_inputs(high[r] + k + 4 * way));
                    l[r][way] = _mm512_dpbusd_epi32(l[r][way], codes, four_inputs(low[r] + k + 4 * way));
                }
            }
        for (int r = 0; r < R; ++r) {
            int64_t place = (first + r) * x.blocks + b;
            for (int way = 1; way < WAYS; ++way) {
                h[r][0] = _mm512_add_epi32(h[r][0], h[r][way]);
                l[r][0] = _mm512_add_epi32(l[r][0], l[r][way]);
            }
            __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(h[r][0], 8), l[r][0]);
            sum = _mm512_sub_epi32(sum, _mm512_set1_epi32(128 * x.sum[place]));
            total[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_set1_ps(x.scale[place]), total[r]);
        }
    }
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, total[r]);
}

template <int R, int WAYS = R <= 2 ? 2 : 1>
void int4_rows(const uint8_t *w, int64_t blocks, int64_t block, const Rows &x, int64_t first, float *sums) {
    const __m512i low_half = _mm512_set1_epi8(15);
    const int8_t *high[R], *low[R];
    __m512 total[R];
    for (int r = 0; r < R; ++r) {
        high[r] = x.high + (first + r) * x.padded;
        low[r] = x.low + (first + r) * x.padded;
        total[r] = _mm512_loadu_ps(sums + r * TILE);
    }
    for (int64_t b = 0; b < blocks; ++b) {
        __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w)));
        __m512 shifts = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 32)));
        w += 64;
        __m512i h[R][WAYS], l[R][WAYS];
        for (int r = 0; r < R; ++r)
            for (int way = 0; way < WAYS; ++way) h[r][way] = l[r][way] = _mm512_setzero_si512();
        for (int64_t k = b * block; k < (b + 1) * block; k += 8, w += 64) {
            _mm_prefetch(reinterpret_cast<const char *>(w + AHEAD), _MM_HINT_T0);
            __m512i codes = _mm512_loadu_si512(w);
            __m512i even = _mm512_and_si512(codes, low_half);
            __m512i odd = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low_half);
            for (int r = 0; r < R; ++r) {
                constexpr int LAST = WAYS - 1;
                h[r][0] = _mm512_dpbusd_epi32(h[r][0], even, four_inputs(high[r] + k));
                l[r][0] = _mm512_dpbusd_epi32(l[r][0], even, four_inputs(low[r] + k));
                h[r][LAST] = _mm512_dpbusd_epi32(h[r][LAST], odd, four_inputs(high[r] + k + 4));
                l[r][LAST] = _mm512_dpbusd_epi32(l[r][LAST], odd, four_inputs(low[r] + k + 4));
            }
        }
        for (int r = 0; r < R; ++r) {
            int64_t place = (first + r) * x.blocks + b;
            float scale = x.scale[place], all = scale * static_cast<float>(x.sum[place]);
            for (int way = 1; way < WAYS; ++way) {
                h[r][0] = _mm512_add_epi32(h[r][0], h[r][way]);
                l[r][0] = _mm512_add_epi32(l[r][0], l[r][way]);
            }
            __m512 sum = _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32(h[r][0], 8), l[r][0]));
            total[r] = _mm512_fmadd_ps(sum, _mm512_mul_ps(_mm512_set1_ps(scale), scales), total[r]);
            total[r] = _mm512_fmadd_ps(_mm512_set1_ps(all), shifts, total[r]);
        }
    }
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, total[r]);
}

// In floating point the order of a sum is part of its result: it is the same for one row and for eight.
template <int R>
void bf16_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    const float *plain[R];
    __m512 even[R], odd[R];
    for (int r = 0; r < R; ++r) {
        plain[r] = x.plain + (first + r) * x.padded;
        even[r] = _mm512_loadu_ps(sums + r * TILE);
        odd[r] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < x.padded; k += 2, w += 64) {
        _mm_prefetch(reinterpret_cast<const char *>(w + AHEAD), _MM_HINT_T0);
        __m512i both = _mm512_loadu_si512(w);
        __m512 one = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
        __m512 two = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
        for (int r = 0; r < R; ++r) {
            even[r] = _mm512_fmadd_ps(one, _mm512_set1_ps(plain[r][k]), even[r]);
            odd[r] = _mm512_fmadd_ps(two, _mm512_set1_ps(plain[r][k + 1]), odd[r]);
        }
    }
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, _mm512_add_ps(even[r], odd[r]));
}

// 2^-8 of the numbers of two inputs.
struct TwoInputs {
    __m512 one, two;
};

inline TwoInputs two_of_fp8(const uint8_t *w) {
    __m512i wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w)));
    __m512i halves = _mm512_and_si512(_mm512_slli_epi16(wide, 7), _mm512_set1_epi16(static_cast<short>(0xbfff)));
    return {_mm512_cvtph_ps(_mm512_castsi512_si256(halves)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1))};
}

template <int R>
void fp8_rows(const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const float *plain[R];
    __m512 even[R], odd[R];
    for (int r = 0; r < R; ++r) {
        plain[r] = x.plain + (first + r) * x.padded;
        even[r] = _mm512_loadu_ps(sums + r * TILE);
        odd[r] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < x.padded; k += 4, w += 4 * TILE) {
        _mm_prefetch(reinterpret_cast<const char *>(w + AHEAD), _MM_HINT_T0);
        for (int half = 0; half < 2; ++half) {
            TwoInputs numbers = two_of_fp8(w + 2 * TILE * half);
            for (int r = 0; r < R; ++r) {
                const float *inputs = plain[r] + k + 2 * half;
                even[r] = _mm512_fmadd_ps(numbers.one, _mm512_set1_ps(inputs[0]), even[r]);
                odd[r] = _mm512_fmadd_ps(numbers.two, _mm512_set1_ps(inputs[1]), odd[r]);
            }
        }
    }
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, _mm512_add_ps(even[r], odd[r]));
}

template <int R>
void fp32_rows(const uint8_t *start, const Rows &x, int64_t first, float *sums) {
    const float *w = reinterpret_cast<const float *>(start), *plain[R];
    __m512 even[R], odd[R];
    for (int r = 0; r < R; ++r) {
        plain[r] = x.plain + (first + r) * x.padded;
        even[r] = _mm512_loadu_ps(sums + r * TILE);
        odd[r] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < x.padded; k += 2, w += 2 * TILE) {
        _mm_prefetch(reinterpret_cast<const char *>(w) + AHEAD, _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char *>(w) + AHEAD + 64, _MM_HINT_T0);
        __m512 one = _mm512_loadu_ps(w), two = _mm512_loadu_ps(w + TILE);
        for (int r = 0; r < R; ++r) {
            even[r] = _mm512_fmadd_ps(one, _mm512_set1_ps(plain[r][k]), even[r]);
            odd[r] = _mm512_fmadd_ps(two, _mm512_set1_ps(plain[r][k + 1]), odd[r]);
        }
    }
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, _mm512_add_ps(even[r], odd[r]));
}

#include "of_rows.inl"

void tile_rows(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    switch (rows) {
        case 1: return of_rows<1>(m, tile, x, first, sums);
        case 2: return of_rows<2>(m, tile, x, first, sums);
        case 3: return of_rows<3>(m, tile, x, first, sums);
        case 4: return of_rows<4>(m, tile, x, first, sums);
        case 5: return of_rows<5>(m, tile, x, first, sums);
        case 6: return of_rows<6>(m, tile, x, first, sums);
        case 7: return of_rows<7>(m, tile, x, first, sums);
        default: return of_rows<8>(m, tile, x, first, sums);
    }
}

}  // namespace
}  // namespace roslin

ROSLIN_END

namespace roslin {
TileProduct avx512_tile_product(Kind) { return tile_rows; }
}  // namespace roslin

#else

namespace roslin {
TileProduct avx512_tile_product(Kind) { return nullptr; }
}  // namespace roslin

#endif
