// Products of a tile with many rows whose numbers are rounded to bfloat16: two at a time, into sums in fp32.

#include "rounded.h"

#include <cstring>

#include "level.h"
#include "pool.h"

#if defined(ROSLIN_X86)

ROSLIN_BEGIN_BF16

namespace roslin {
namespace {

// Two floats that bfloat16 holds, as the pair that a product takes.
inline __m512i pair_of(__m512 one, __m512 two) {
    __m512i low = _mm512_srli_epi32(_mm512_castps_si512(one), 16);
    return _mm512_or_si512(low, _mm512_and_si512(_mm512_castps_si512(two), _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

// Byte i of every four, less 128.
template <int I>
inline __m512 code(__m512i codes) {
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(codes, 24 - 8 * I), 24));
}

void unpack_int8(const uint8_t *w, int64_t blocks, uint8_t *to) {
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    for (int64_t step = 0; step < blocks * 16; ++step, w += 64, to += 128) {
        __m512i codes = _mm512_xor_si512(_mm512_loadu_si512(w), sign);
        _mm512_storeu_si512(to, pair_of(code<0>(codes), code<1>(codes)));
        _mm512_storeu_si512(to + 64, pair_of(code<2>(codes), code<3>(codes)));
    }
}

// The number of each code in the lowest half of byte I.
template <int I>
inline __m512 number(__m512i codes, __m512 scales, __m512 shifts) {
    __m512i code = _mm512_and_si512(_mm512_srli_epi32(codes, 8 * I), _mm512_set1_epi32(15));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(code), scales, shifts);
}

inline __m512 rounded(__m512 x) {
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000)));
}

inline void unpack_halves(__m512i codes, __m512 scales, __m512 shifts, uint8_t *to) {
    __m512 zero = number<0>(codes, scales, shifts), one = number<1>(codes, scales, shifts);
    __m512 two = number<2>(codes, scales, shifts), three = number<3>(codes, scales, shifts);
    _mm512_storeu_si512(to, pair_of(rounded(zero), rounded(one)));
    _mm512_storeu_si512(to + 64, pair_of(rounded(two), rounded(three)));
}

void unpack_int4(const uint8_t *w, int64_t blocks, int64_t block, uint8_t *to) {
    for (int64_t b = 0; b < blocks; ++b) {
        __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w)));
        __m512 shifts = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(w + 32)));
        w += 2 * 2 * TILE;
        for (int64_t k = 0; k < block; k += 8, w += 64, to += 256) {
            __m512i codes = _mm512_loadu_si512(w);
            unpack_halves(codes, scales, shifts, to);
            unpack_halves(_mm512_srli_epi32(codes, 4), scales, shifts, to + 128);
        }
    }
}

// 2^-8 of the numbers of one input.
inline __m512 one_of_fp8(const uint8_t *w) {
    __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i *>(w)));
    return _mm512_cvtph_ps(_mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(static_cast<short>(0xbfff))));
}

void unpack_fp8(const uint8_t *w, int64_t steps, uint8_t *to) {
    for (int64_t step = 0; step < steps; ++step, w += 2 * TILE, to += 64)
        _mm512_storeu_si512(to, pair_of(one_of_fp8(w), one_of_fp8(w + TILE)));
}

void unpack_fp32(const uint8_t *w, int64_t steps, uint8_t *to) {
    for (int64_t step = 0; step < steps; ++step, w += 128, to += 64) {
        __m512i one = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(w)));
        __m512i two = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(w + 64)));
        _mm512_storeu_si512(to, _mm512_or_si512(one, _mm512_slli_epi32(two, 16)));
    }
}

const uint8_t *unpacked(const Piece &piece, int64_t tile, uint8_t *room) {
    const Matrix &m = *piece.matrix;
    const uint8_t *w = m.data + (piece.tile + tile) * m.tile_bytes() + piece.block * m.block_bytes();
    switch (m.kind) {
        case BF16: return w;
        case INT8: unpack_int8(w, piece.blocks, room); break;
        case INT4: unpack_int4(w, piece.blocks, m.block, room); break;
        case FP8: unpack_fp8(w, piece.blocks * m.block / 2, room); break;
        default: unpack_fp32(w, piece.blocks * m.block / 2, room);
    }
    return room;
}

inline __m512bh two_inputs(const uint16_t *x) {
    int32_t both;
    std::memcpy(&both, x, 4);
    return (__m512bh)_mm512_set1_epi32(both);
}

template <int R, int T>
void of_rows(const Piece &piece, const Rows &x, int64_t first, float *sums, int64_t apart) {
    const int64_t inputs = piece.blocks * piece.matrix->block, start = piece.block * piece.matrix->block;
    const uint16_t *at[R];
    __m512 total[R][T];
    for (int r = 0; r < R; ++r) {
        at[r] = x.rounded + (first + r) * x.padded + start;
        for (int t = 0; t < T; ++t) total[r][t] = _mm512_loadu_ps(sums + t * apart + r * TILE);
    }
    for (int64_t k = 0; k < inputs; k += 2) {
        __m512bh weights[T];
        for (int t = 0; t < T; ++t) weights[t] = (__m512bh)_mm512_loadu_si512(piece.unpacked[t] + 32 * k);
        for (int r = 0; r < R; ++r) {
            __m512bh both = two_inputs(at[r] + k);
            for (int t = 0; t < T; ++t) total[r][t] = _mm512_dpbf16_ps(total[r][t], weights[t], both);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) _mm512_storeu_ps(sums + t * apart + r * TILE, total[r][t]);
}

template <int R>
void of_tiles(const Piece &piece, const Rows &x, int64_t first, float *sums, int64_t apart) {
    if (piece.tiles == 2) return of_rows<R, 2>(piece, x, first, sums, apart);
    of_rows<R, 1>(piece, x, first, sums, apart);
}

void product(const Piece &piece, const Rows &x, int64_t first, int64_t rows, float *sums, int64_t apart) {
    switch (rows) {
        case 1: return of_tiles<1>(piece, x, first, sums, apart);
        case 2: return of_tiles<2>(piece, x, first, sums, apart);
        case 3: return of_tiles<3>(piece, x, first, sums, apart);
        case 4: return of_tiles<4>(piece, x, first, sums, apart);
        case 5: return of_tiles<5>(piece, x, first, sums, apart);
        case 6: return of_tiles<6>(piece, x, first, sums, apart);
        case 7: return of_tiles<7>(piece, x, first, sums, apart);
        default: return of_tiles<8>(piece, x, first, sums, apart);
    }
}

}  // namespace
}  // namespace roslin

ROSLIN_END

namespace roslin {
RoundedProduct rounded_product() {
    static const bool there = __builtin_cpu_supports("avx512bf16");
    if (level() == AVX512_VNNI && there) return {unpacked, product};
    return {nullptr, nullptr};
}
}  // namespace roslin

#else

namespace roslin {
RoundedProduct rounded_product() { return {nullptr, nullptr}; }
}  // namespace roslin

#endif

// Whether the processor multiplies numbers in bfloat16, so that rows can be rounded to that.
ROSLIN_API int roslin_rounds() { return roslin::rounded_product().product != nullptr; }
