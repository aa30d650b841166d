#include "rows.h"

#include <cmath>

#include "level.h"
#include "pool.h"

namespace roslin {

#define ROSLIN_BODY "rows.inl"
#include "every_level.inl"

RowFunctions row_functions() {
#if defined(ROSLIN_X86)
    Level now = level();
    if (now == AVX512 || now == AVX512_VNNI) return {avx512::prepare, avx512::finish, avx512::turn, avx512::outlook, avx512::weights};
    if (now == AVX2) return {avx2::prepare, avx2::finish, avx2::turn, avx2::outlook, avx2::weights};
#endif
    return {portable::prepare, portable::finish, portable::turn, portable::outlook, portable::weights};
}

}  // namespace roslin

// Rows [rows, width] as they go into products, normed or gated.
ROSLIN_API void roslin_prepare(const roslin::Input *input, int64_t rows, float *out, int threads) {
    using namespace roslin;
    constexpr int64_t BY_ONE = 1 << 15;  // numbers
    RowFunctions functions = row_functions();
    Prepared to = {};
    to.plain = out;
    to.padded = input->width;
    parallel(rows * input->width > BY_ONE ? threads : 1, rows,
             [&](int64_t row) { functions.prepare(*input, row, to); });
}
