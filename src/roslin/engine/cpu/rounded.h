// Products of rows that are rounded to bfloat16: twice as fast as others on processors that multiply such numbers.
#pragma once

#include "product.h"

namespace roslin {

constexpr int64_t TILES_TOGETHER = 2;

// One tile or two that lie beside each other, cut out of their blocks.
struct Piece {
    const Matrix *matrix;
    int64_t tile, tiles;
    int64_t block, blocks;  // the first, and how many
    // Each tile's piece as steps of [16 outputs][2 inputs] in bfloat16, which hold the codes of INT8, 2^-8 of
    // FP8, and the numbers of all other kinds, rounded.
    const uint8_t *unpacked[TILES_TOGETHER];
};

struct RoundedProduct {
    // A tile of a piece, unpacked: where it lies in the matrix, or in `room`, which has 32 bytes for each input.
    const uint8_t *(*unpacked)(const Piece &, int64_t tile, uint8_t *room);
    // Add to sums [tiles, rows, 16] the products of a piece with up to ROWS_AT_ONCE rows that are `rounded`; the sums of the
    // second tile are `apart` numbers behind those of the first. Of INT8 and FP8, the outputs' scales are left to the
    // caller.
    void (*product)(const Piece &, const Rows &, int64_t first, int64_t rows, float *sums, int64_t apart);
};

// Both null where this processor, or the level in use, has none.
RoundedProduct rounded_product();

// What `run_tile` does, for the tiles `begin` to `end` of an output and rows that are rounded; `out` is the first tile's.
void run_rounded(const Work &work, const RowFunctions &functions, const Output &output, int64_t begin, int64_t end,
                 int64_t start, int64_t count, float *out);

}  // namespace roslin
