// Products of one tile in plain C++: what every other form must equal, and what runs where there is none.

#include <cstring>

#include "level.h"
#include "matrix.h"

namespace roslin {

float half_to_float(uint16_t half) {
    uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
    union {
        uint32_t bits;
        float value;
    } both;
    if (rest < 0x0400) {  // below the normal numbers: so many times 2^-24
        both.value = static_cast<float>(rest) * 5.9604644775390625e-8f;
        both.bits |= sign;
    } else {
        uint32_t exponent = rest >= 0x7c00 ? 0x7f800000 : (rest & 0x7c00) * 8192u + 0x38000000;
        both.bits = sign | exponent | (rest & 0x03ff) << 13;
    }
    return both.value;
}

namespace {

void int8_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    const uint8_t *start = m.data + tile * m.tile_bytes();
    for (int64_t r = 0; r < rows; ++r) {
        const uint8_t *w = start;
        const int16_t *whole = x.whole + (first + r) * x.padded;
        for (int64_t b = 0; b < x.blocks; ++b) {
            int64_t place = (first + r) * x.blocks + b;
            int32_t sum[TILE] = {};
            for (int64_t k = 0; k < m.block; k += 4, w += 4 * TILE, whole += 4)
                for (int64_t o = 0; o < TILE; ++o)
                    for (int64_t i = 0; i < 4; ++i) sum[o] += (w[4 * o + i] - 128) * whole[i];
            for (int64_t o = 0; o < TILE; ++o) sums[r * TILE + o] += static_cast<float>(sum[o]) * x.scale[place];
        }
    }
}

void int4_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    const uint8_t *start = m.data + tile * m.tile_bytes();
    for (int64_t r = 0; r < rows; ++r) {
        const uint8_t *w = start;
        const int16_t *whole = x.whole + (first + r) * x.padded;
        for (int64_t b = 0; b < x.blocks; ++b) {
            int64_t place = (first + r) * x.blocks + b;
            uint16_t halves[2 * TILE];
            std::memcpy(halves, w, sizeof halves);
            w += sizeof halves;
            int32_t sum[TILE] = {};
            for (int64_t k = 0; k < m.block; k += 8, w += 4 * TILE, whole += 8)
                for (int64_t o = 0; o < TILE; ++o)
                    for (int64_t i = 0; i < 4; ++i)
                        sum[o] += (w[4 * o + i] & 15) * whole[i] + (w[4 * o + i] >> 4) * whole[4 + i];
            float scale = x.scale[place], all = scale * static_cast<float>(x.sum[place]);
            for (int64_t o = 0; o < TILE; ++o) {
                sums[r * TILE + o] += static_cast<float>(sum[o]) * (scale * half_to_float(halves[o]));
                sums[r * TILE + o] += all * half_to_float(halves[TILE + o]);
            }
        }
    }
}

void fp8_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    const uint8_t *start = m.data + tile * m.tile_bytes();
    for (int64_t r = 0; r < rows; ++r) {
        const uint8_t *w = start;
        const float *plain = x.plain + (first + r) * x.padded;
        for (int64_t k = 0; k < x.padded; ++k, w += TILE)
            for (int64_t o = 0; o < TILE; ++o) sums[r * TILE + o] += part_of_fp8(w[o]) * plain[k];
    }
}

void bf16_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    const uint8_t *start = m.data + tile * m.tile_bytes();
    for (int64_t r = 0; r < rows; ++r) {
        const uint16_t *w = reinterpret_cast<const uint16_t *>(start);
        const float *plain = x.plain + (first + r) * x.padded;
        for (int64_t k = 0; k < x.padded; k += 2, w += 2 * TILE)
            for (int64_t o = 0; o < TILE; ++o)
                sums[r * TILE + o] += from_bfloat16(w[2 * o]) * plain[k] + from_bfloat16(w[2 * o + 1]) * plain[k + 1];
    }
}

void fp32_tile(const Matrix &m, int64_t tile, const Rows &x, int64_t first, int64_t rows, float *sums) {
    const uint8_t *start = m.data + tile * m.tile_bytes();
    for (int64_t r = 0; r < rows; ++r) {
        const float *w = reinterpret_cast<const float *>(start);
        const float *plain = x.plain + (first + r) * x.padded;
        for (int64_t k = 0; k < x.padded; ++k, w += TILE)
            for (int64_t o = 0; o < TILE; ++o) sums[r * TILE + o] += w[o] * plain[k];
    }
}

TileProduct plain_tile_product(Kind kind) {
    switch (kind) {
        case INT8: return int8_tile;
        case INT4: return int4_tile;
        case FP8: return fp8_tile;
        case BF16: return bf16_tile;
        default: return fp32_tile;
    }
}

}  // namespace

TileProduct tile_product(Kind kind) {
    TileProduct found = nullptr;
    Level now = level();
    if (now == AVX512_VNNI) found = avx512_tile_product(kind);
    if (now == AVX512 && kind != INT8 && kind != INT4) found = avx512_tile_product(kind);
    if (!found && now >= AVX2 && now <= AVX512_VNNI) found = avx2_tile_product(kind);
    if (now == NEON || now == NEON_DOT) found = neon_tile_product(kind);
    return found ? found : plain_tile_product(kind);
}

}  // namespace roslin
