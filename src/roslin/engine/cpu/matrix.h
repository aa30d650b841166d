// A matrix [outputs, inputs] in the order in which a product of few rows reads it: once, from front to end.
//
// Sixteen outputs are a tile. A tile runs through the inputs in blocks, padded with zeros to whole ones:
//   INT8   a block is 64 inputs: 16 steps of [16 outputs][4 inputs] bytes, the signed code plus 128
//   INT4   a block is a group of 32, 64 or 128 inputs: 16 scales and 16 shifts in fp16, then steps of
//          [16 outputs][4 bytes], which hold eight inputs, the first four in the low halves
//   BF16   a block is 64 inputs: 32 steps of [16 outputs][2 inputs]
//   FP32   a block is 64 inputs: 64 steps of [16 outputs]
//   FP8    the same: e4m3, which shifted into the places of fp16 is 2^-8 of itself; the scale makes up for that
#pragma once

#include <cstdint>

namespace roslin {

enum Kind : int32_t { INT4 = 4, INT8 = 8, FP8 = 9, BF16 = 16, FP32 = 32 };

constexpr int64_t TILE = 16;

struct Matrix {
    const uint8_t *data;
    const float *scale;  // of INT8 and FP8, an output's own, padded to whole tiles; else null
    int64_t outputs;
    int64_t inputs;
    int64_t block;  // inputs in a block
    int32_t kind;

    int64_t tiles() const { return (outputs + TILE - 1) / TILE; }
    int64_t blocks() const { return (inputs + block - 1) / block; }
    int64_t block_bytes() const {
        int64_t numbers = block * TILE;
        if (kind == INT4) return numbers / 2 + 2 * TILE * 2;
        return kind == INT8 || kind == FP8 ? numbers : numbers * kind / 8;
    }
    int64_t tile_bytes() const { return blocks() * block_bytes(); }
    bool whole() const { return kind == INT8 || kind == INT4; }
};

// Rows of numbers. Those that meet whole-number codes are whole numbers of 16 bits, a scale for each block: products are
// exact, so that a row's result is the same to the bit whatever rows it shares a product with.
struct Rows {
    int64_t count;
    int64_t padded;      // inputs of a row, padded to whole blocks
    int64_t blocks;
    const float *plain;  // [count, padded], for matrices in floating point
    const int16_t *whole;              // [count, padded]: 256 · high + low
    const int8_t *high, *low;          // [count, padded]
    const float *scale;                // [count, blocks]
    const int32_t *sum;                // [count, blocks], of the whole numbers
    const uint16_t *rounded;           // [count, padded], in bfloat16; then nothing else is there
};

constexpr int64_t ROWS_AT_ONCE = 8;

// Add to sums [rows, 16] the products of one tile with up to ROWS_AT_ONCE rows, from `first` on. Of INT8 and FP8, the
// outputs' scales are left to the caller.
using TileProduct = void (*)(const Matrix &, int64_t tile, const Rows &, int64_t first, int64_t rows, float *sums);

TileProduct tile_product(Kind kind);

// The functions behind `tile_product`, null where this build has none for the level.
TileProduct avx512_tile_product(Kind kind);
TileProduct avx2_tile_product(Kind kind);
TileProduct neon_tile_product(Kind kind);

// Write the first `rows` outputs of a tile as bfloat16 [rows, inputs].
using UnpackTile = void (*)(const Matrix &, int64_t tile, int64_t rows, uint16_t *out);

UnpackTile unpack_tile();

float half_to_float(uint16_t half);

// 2^-8 of a number in FP8. Its NaN has no place there: who packs a row with one makes it the row's scale.
inline float part_of_fp8(uint8_t number) {
    return half_to_float(static_cast<uint16_t>((number & 0x80) << 8 | (number & 0x7f) << 7));
}

inline float from_bfloat16(uint16_t number) {
    union {
        uint32_t bits;
        float value;
    } both = {static_cast<uint32_t>(number) << 16};
    return both.value;
}

}  // namespace roslin
