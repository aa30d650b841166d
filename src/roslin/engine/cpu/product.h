// Products of a layer: what goes in is prepared some rows at a time, then tiles of outputs are made of it.
#pragma once

#include <cstdint>

#include "matrix.h"
#include "rows.h"

namespace roslin {

// One output: a product with its input, bias, activation and residual; then perhaps a second product with its own input.
// What stands before the second can be had by itself, to the same bits.
struct Output {
    const Matrix *first, *second;  // `second` may be null
    const float *bias;             // may be null
    const float *residual;         // may be null, or be `out`
    float *out;
    int64_t residual_stride;
    int64_t out_stride;
    int32_t first_input, second_input;
    int32_t activation;
    int32_t unused;
};

constexpr int64_t MOST_INPUTS = 4;
constexpr int64_t SLAB = 256;  // rows that are prepared at once

struct Place {
    Prepared to;
    Rows rows;
};

struct Work {
    const Input *inputs;
    int64_t input_count;
    const Output *outputs;
    int64_t output_count;
    bool rounded;  // rows to bfloat16
    Place places[MOST_INPUTS];
};

// Prepare `count` rows of every input, from `start` on; they last until the calling thread prepares others. False if
// there is no memory.
bool prepare_slab(Work &work, int64_t start, int64_t count, int threads);

// How a tile of an output ends, for rows from `row` on; `out` is their place.
Finish finish_of(const Output &output, int64_t tile, int64_t row, float *out, int64_t out_stride);

// The outputs of a tile for those rows, to `out`, whose rows lie `out_stride` apart.
void run_tile(const Work &work, const RowFunctions &functions, const Output &output, int64_t tile, int64_t start,
              int64_t count, float *out, int64_t out_stride);

}  // namespace roslin
