// Matrices row by row, as files have them, into the order of matrix.h.

#include <algorithm>
#include <cstring>

#include "matrix.h"
#include "pool.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace roslin {
namespace {

template <typename Fill>
void each_block(const Matrix &m, int threads, Fill &&fill) {
    parallel(threads, m.tiles(), [&](int64_t tile) {
        uint8_t *to = const_cast<uint8_t *>(m.data) + tile * m.tile_bytes();
        for (int64_t b = 0; b < m.blocks(); ++b, to += m.block_bytes()) fill(tile, b * m.block, to);
    });
}

// `one(row, input)` for each number of a block whose steps are [16 outputs][together], or what pads it.
template <typename Number, typename One>
void fill_steps(const Matrix &m, int64_t tile, int64_t input, int64_t together, Number padding, uint8_t *to, One &&one) {
    Number *place = reinterpret_cast<Number *>(to);
    for (int64_t k = input; k < input + m.block; k += together)
        for (int64_t row = tile * TILE; row < (tile + 1) * TILE; ++row)
            for (int64_t i = k; i < k + together; ++i)
                *place++ = row < m.outputs && i < m.inputs ? one(row, i) : padding;
}

}  // namespace
}  // namespace roslin

// How many bytes a matrix takes.
ROSLIN_API int64_t roslin_packed_bytes(const roslin::Matrix *matrix) { return matrix->tiles() * matrix->tile_bytes(); }

// Ask for large pages, which a matrix is read through faster. Before anything is written there.
ROSLIN_API void roslin_large_pages(void *memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t PAGE = 4096;
    uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + PAGE - 1) / PAGE * PAGE;
    uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + bytes) / PAGE * PAGE;
    if (end > begin) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)bytes;
#endif
}

// Signed codes [outputs, inputs].
ROSLIN_API void roslin_pack_int8(const roslin::Matrix *m, const int8_t *codes, int threads) {
    using namespace roslin;
    each_block(*m, threads, [&](int64_t tile, int64_t input, uint8_t *to) {
        fill_steps<uint8_t>(*m, tile, input, 4, 128, to, [&](int64_t row, int64_t k) {
            return static_cast<uint8_t>(codes[row * m->inputs + k] + 128);
        });
    });
}

// Numbers [outputs, inputs] in e4m3.
ROSLIN_API void roslin_pack_fp8(const roslin::Matrix *m, const uint8_t *numbers, int threads) {
    using namespace roslin;
    each_block(*m, threads, [&](int64_t tile, int64_t input, uint8_t *to) {
        fill_steps<uint8_t>(*m, tile, input, 1, 0, to, [&](int64_t row, int64_t k) { return numbers[row * m->inputs + k]; });
    });
}

// Codes [outputs, ceil(inputs / 2)], two a byte, the first in the low half; scales and shifts [outputs, groups] in fp16.
ROSLIN_API void roslin_pack_int4(const roslin::Matrix *m, const uint8_t *codes, const uint16_t *scales,
                                 const uint16_t *shifts, int threads) {
    using namespace roslin;
    int64_t bytes = (m->inputs + 1) / 2, groups = m->blocks();
    each_block(*m, threads, [&](int64_t tile, int64_t input, uint8_t *to) {
        uint16_t halves[2 * TILE] = {};
        for (int64_t o = 0; o < std::min(TILE, m->outputs - tile * TILE); ++o) {
            int64_t place = (tile * TILE + o) * groups + input / m->block;
            halves[o] = scales[place];
            halves[TILE + o] = shifts[place];
        }
        std::memcpy(to, halves, sizeof halves);
        to += sizeof halves;
        auto code = [&](int64_t row, int64_t k) {
            if (row >= m->outputs || k >= m->inputs) return 0;
            return k % 2 ? codes[row * bytes + k / 2] >> 4 : codes[row * bytes + k / 2] & 15;
        };
        for (int64_t k = input; k < input + m->block; k += 8)
            for (int64_t row = tile * TILE; row < (tile + 1) * TILE; ++row)
                for (int64_t i = k; i < k + 4; ++i) *to++ = static_cast<uint8_t>(code(row, i) | code(row, i + 4) << 4);
    });
}

// Numbers [outputs, inputs] in bfloat16 or fp32, whichever the matrix's kind is.
ROSLIN_API void roslin_pack_plain(const roslin::Matrix *m, const void *numbers, int threads) {
    using namespace roslin;
    each_block(*m, threads, [&](int64_t tile, int64_t input, uint8_t *to) {
        if (m->kind == BF16) {
            const uint16_t *from = static_cast<const uint16_t *>(numbers);
            fill_steps<uint16_t>(*m, tile, input, 2, 0, to, [&](int64_t row, int64_t k) { return from[row * m->inputs + k]; });
        } else {
            const float *from = static_cast<const float *>(numbers);
            fill_steps<float>(*m, tile, input, 1, 0, to, [&](int64_t row, int64_t k) { return from[row * m->inputs + k]; });
        }
    });
}

// Outputs `start` (a multiple of 16) to `start + count` as bfloat16 [count, inputs].
ROSLIN_API void roslin_unpack(const roslin::Matrix *m, int64_t start, int64_t count, uint16_t *out, int threads) {
    using namespace roslin;
    UnpackTile one = unpack_tile();
    parallel(threads, (count + TILE - 1) / TILE, [&](int64_t tile) {
        int64_t rows = std::min(TILE, count - tile * TILE);
        one(*m, start / TILE + tile, rows, out + tile * TILE * m->inputs);
    });
}
