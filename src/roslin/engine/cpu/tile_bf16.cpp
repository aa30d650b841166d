// Products of a tile with many rows whose numbers are rounded to bfloat16: two at a time, into sums in fp32.

#include "rounded.h"

#include <cstring>

#include "level.h"

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

// The codes alone, 0 to 15: scales and shifts are for the sums of a group.
void unpack_int4(const uint8_t *w, int64_t blocks, int64_t block, uint8_t *to) {
    alignas(64) uint16_t table[32];
    for (int i = 0; i < 32; ++i) {
        float number = static_cast<float>(i % 16);
        uint32_t bits;
        std::memcpy(&bits, &number, 4);
        table[i] = static_cast<uint16_t>(bits >> 16);
    }
    const __m512i numbers = _mm512_load_si512(table);
    // Two of every four bytes, each to two bytes of which the upper one is zero.
    const __m512i one = _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const __m512i two = _mm512_broadcast_i32x4(_mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1));
    for (int64_t b = 0; b < blocks; ++b) {
        w += 2 * 2 * TILE;
        for (int64_t k = 0; k < block; k += 8, w += 64, to += 256) {
            __m512i codes = _mm512_loadu_si512(w);
            __m512i first = _mm512_shuffle_epi8(codes, one), last = _mm512_shuffle_epi8(codes, two);
            // A number's place in the table is its lowest five bits; the table repeats itself behind the first four.
            _mm512_storeu_si512(to, _mm512_permutexvar_epi16(first, numbers));
            _mm512_storeu_si512(to + 64, _mm512_permutexvar_epi16(last, numbers));
            _mm512_storeu_si512(to + 128, _mm512_permutexvar_epi16(_mm512_srli_epi16(first, 4), numbers));
            _mm512_storeu_si512(to + 192, _mm512_permutexvar_epi16(_mm512_srli_epi16(last, 4), numbers));
        }
    }
}

void unpack_fp32(const uint8_t *w, int64_t steps, uint8_t *to) {
    for (int64_t step = 0; step < steps; ++step, w += 128, to += 64) {
        __m512i one = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(w)));
        __m512i two = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(w + 64)));
        _mm512_storeu_si512(to, _mm512_or_si512(one, _mm512_slli_epi32(two, 16)));
    }
}

const uint8_t *unpacked(const Matrix &m, int64_t tile, uint8_t *room) {
    const uint8_t *w = m.data + tile * m.tile_bytes();
    switch (m.kind) {
        case BF16: return w;
        case INT8: unpack_int8(w, m.blocks(), room); break;
        case INT4: unpack_int4(w, m.blocks(), m.block, room); break;
        default: unpack_fp32(w, m.blocks() * m.block / 2, room);
    }
    return room;
}

inline __m512bh two_inputs(const uint16_t *x) {
    int32_t both;
    std::memcpy(&both, x, 4);
    return (__m512bh)_mm512_set1_epi32(both);
}

template <int R>
inline void add_products(const uint8_t *w, int64_t inputs, const uint16_t *const (&x)[R], __m512 (&total)[R]) {
    for (int64_t k = 0; k < inputs; k += 2, w += 64) {
        __m512bh weights = (__m512bh)_mm512_loadu_si512(w);
        for (int r = 0; r < R; ++r) total[r] = _mm512_dpbf16_ps(total[r], weights, two_inputs(x[r] + k));
    }
}

template <int R>
void of_groups(const Matrix &m, int64_t tile, const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    const uint8_t *packed = m.data + tile * m.tile_bytes();
    const uint16_t *at[R];
    __m512 total[R];
    for (int r = 0; r < R; ++r) total[r] = _mm512_loadu_ps(sums + r * TILE);
    for (int64_t b = 0; b < m.blocks(); ++b, packed += m.block_bytes(), w += 32 * m.block) {
        __m512 scales = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(packed)));
        __m512 shifts = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(packed + 32)));
        __m512 group[R];
        for (int r = 0; r < R; ++r) {
            at[r] = x.rounded + (first + r) * x.padded + b * m.block;
            group[r] = _mm512_setzero_ps();
        }
        add_products<R>(w, m.block, at, group);
        for (int r = 0; r < R; ++r) {
            total[r] = _mm512_fmadd_ps(group[r], scales, total[r]);
            total[r] = _mm512_fmadd_ps(shifts, _mm512_set1_ps(x.rounded_sum[(first + r) * x.blocks + b]), total[r]);
        }
    }
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, total[r]);
}

template <int R>
void of_rows(const Matrix &m, int64_t tile, const uint8_t *w, const Rows &x, int64_t first, float *sums) {
    if (m.kind == INT4) return of_groups<R>(m, tile, w, x, first, sums);
    const uint16_t *at[R];
    __m512 total[R];
    for (int r = 0; r < R; ++r) {
        at[r] = x.rounded + (first + r) * x.padded;
        total[r] = _mm512_loadu_ps(sums + r * TILE);
    }
    add_products<R>(w, x.padded, at, total);
    for (int r = 0; r < R; ++r) _mm512_storeu_ps(sums + r * TILE, total[r]);
}

void product(const Matrix &m, int64_t tile, const uint8_t *w, const Rows &x, int64_t first, int64_t rows, float *sums) {
    switch (rows) {
        case 1: return of_rows<1>(m, tile, w, x, first, sums);
        case 2: return of_rows<2>(m, tile, w, x, first, sums);
        case 3: return of_rows<3>(m, tile, w, x, first, sums);
        case 4: return of_rows<4>(m, tile, w, x, first, sums);
        case 5: return of_rows<5>(m, tile, w, x, first, sums);
        case 6: return of_rows<6>(m, tile, w, x, first, sums);
        case 7: return of_rows<7>(m, tile, w, x, first, sums);
        default: return of_rows<8>(m, tile, w, x, first, sums);
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
