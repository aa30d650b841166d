// Products of rows that are rounded to bfloat16: twice as fast as others on processors that multiply such numbers.
#pragma once

#include "matrix.h"
#include "pool.h"

namespace roslin {

struct RoundedProduct {
    // A tile as steps of [16 outputs][2 inputs] in bfloat16, which hold the numbers of BF16 and FP32 (rounded) and the
    // codes of INT8 and INT4: where it lies in the matrix, or in `room`, which has 32 bytes for each padded input.
    const uint8_t *(*unpacked)(const Matrix &, int64_t tile, uint8_t *room);
    // Add to sums [rows, 16] the products of a tile, given so, with up to ROWS_AT_ONCE rows that are `rounded`. Of INT8,
    // the outputs' scales are left to the caller.
    void (*product)(const Matrix &, int64_t tile, const uint8_t *unpacked, const Rows &, int64_t first, int64_t rows,
                    float *sums);
};

// Both null where this processor, or the level in use, has none.
RoundedProduct rounded_product();

}  // namespace roslin
