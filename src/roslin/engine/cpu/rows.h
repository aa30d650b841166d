// What stands before and behind the matrices of a layer: norms, gates, activations, rotary turns.
#pragma once

#include <cstdint>

#include "matrix.h"

namespace roslin {

enum Norm : int32_t { NO_NORM = 0, LAYER_NORM = 1, RMS_NORM = 2 };
enum Activation : int32_t { NO_ACTIVATION = 0, GELU = 1, GELU_TANH = 2, SILU = 3 };

// Rows [N, width] that are normed, or gated, on their way into products. Gated rows are [N, 2 width]: the activation of
// the first half times the second. `gain` and `shift` [width] may be null.
struct Input {
    const float *x;
    const float *gain, *shift;
    int64_t stride;
    int64_t width;
    int32_t norm;
    int32_t gate;
    float eps;
    int32_t unused;
};

// Rotary turns of the first `heads` heads of each row: a head's first `dims` numbers, in pairs that are neighbours
// (interleaved) or half of `dims` apart. `cos` and the signed `sin` have a row of `dims` numbers for each row.
struct Turn {
    const float *cos, *sin;
    int64_t stride;
    int64_t heads, head_dim, dims;
    int32_t interleaved;
    int32_t output;
};

// Where `prepare` writes a row: its plain numbers, and what quantised matrices meet.
struct Prepared {
    float *plain;
    int16_t *whole;
    int8_t *high, *low;
    float *scale;
    int32_t *sum;
    uint16_t *rounded;  // null, or where the numbers are to stand in bfloat16, and nothing else
    int64_t padded;
    int64_t block;  // 0: plain numbers are all that is wanted
};

// Where `finish` writes a tile's outputs of some rows, and what it adds to them before; both may be null.
struct Finish {
    const float *bias;  // [width]
    const float *residual;
    float *out;
    int64_t residual_stride, out_stride;
    int64_t width;  // outputs of the tile
    int32_t activation;
};

// Logits in short: the highest, the first place where it stands, and the sum of e to the power of how far each is from it.
struct Outlook {
    float most, sum;
    int64_t first;
};

struct RowFunctions {
    void (*prepare)(const Input &, int64_t row, const Prepared &);
    // Bias, activation and residual to sums [rows, TILE]; then others, where they are not null.
    void (*finish)(const Finish &, float *sums, const float *others, int64_t rows);
    void (*turn)(const Turn &, int64_t row, float *heads);
    Outlook (*outlook)(const float *logits, int64_t count);
    // e to the power of how far each logit is from `most`, times `steep`; what is below 1e-37 becomes 0.
    void (*weights)(const float *logits, int64_t count, float most, float steep, float *out);
};

RowFunctions row_functions();

}  // namespace roslin
