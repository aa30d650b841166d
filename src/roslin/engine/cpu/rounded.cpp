// Products with rows that are rounded: pieces of a few tiles meet all rows while the same pieces of the rows are near.

#include "rounded.h"

#include <algorithm>
#include <vector>

namespace roslin {
namespace {

constexpr int64_t TILES_AT_ONCE = 8;
constexpr int64_t NUMBERS_NEAR = 1 << 17;  // of all rows: a quarter of a megabyte, which a core keeps for itself
constexpr int64_t MOST_INPUTS_NEAR = 1024;
constexpr int64_t LINE = 64;

// Memory of a thread that is kept from call to call, and begins where a line of the cache does.
template <int PURPOSE, typename T>
T *kept(int64_t count) {
    thread_local std::vector<T> room;
    constexpr int64_t more = LINE / sizeof(T);
    if (static_cast<int64_t>(room.size()) < count + more) room.resize(count + more);
    uintptr_t start = reinterpret_cast<uintptr_t>(room.data());
    return room.data() + (LINE - start % LINE) % LINE / sizeof(T);
}

// The sums [tiles, count, TILE] of the tiles `begin` to `end` with all rows.
void sums_of(const Matrix &matrix, int64_t begin, int64_t end, const Rows &x, int64_t count, float *sums) {
    RoundedProduct how = rounded_product();
    int64_t apart = count * TILE, near = std::min(MOST_INPUTS_NEAR, NUMBERS_NEAR / count);
    int64_t at_once = std::max<int64_t>(1, near / matrix.block), bytes = 2 * TILE * at_once * matrix.block;
    uint8_t *room = kept<0, uint8_t>(TILES_TOGETHER * bytes);
    std::fill(sums, sums + (end - begin) * apart, 0.0f);
    // As many rows at once each time as can be: fewer wait longer for each other's sums.
    int64_t times = (count + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
    for (int64_t block = 0; block < matrix.blocks(); block += at_once)
        for (int64_t tile = begin; tile < end; tile += TILES_TOGETHER) {
            Piece piece = {&matrix, tile,  std::min(TILES_TOGETHER, end - tile),
                           block,   std::min(at_once, matrix.blocks() - block), {}};
            for (int64_t t = 0; t < piece.tiles; ++t) piece.unpacked[t] = how.unpacked(piece, t, room + t * bytes);
            for (int64_t time = 0; time < times; ++time) {
                int64_t row = count * time / times, rows = count * (time + 1) / times - row;
                how.product(piece, x, row, rows, sums + (tile - begin) * apart + row * TILE, apart);
            }
        }
    if (!matrix.scale) return;
    for (int64_t tile = begin; tile < end; ++tile)
        for (int64_t r = 0; r < count; ++r, sums += TILE)
            for (int64_t o = 0; o < TILE; ++o) sums[o] *= matrix.scale[tile * TILE + o];
}

}  // namespace

void run_rounded(const Work &work, const RowFunctions &functions, const Output &output, int64_t begin, int64_t end,
                 int64_t start, int64_t count, float *out) {
    float *sums = kept<1, float>(TILES_AT_ONCE * count * TILE), *others = nullptr;
    if (output.second) others = kept<2, float>(TILES_AT_ONCE * count * TILE);
    for (int64_t first = begin; first < end; first += TILES_AT_ONCE) {
        int64_t last = std::min(end, first + TILES_AT_ONCE);
        sums_of(*output.first, first, last, work.places[output.first_input].rows, count, sums);
        if (others) sums_of(*output.second, first, last, work.places[output.second_input].rows, count, others);
        for (int64_t tile = first; tile < last; ++tile) {
            Finish finish = finish_of(output, tile, start, out + (tile - begin) * TILE, output.out_stride);
            int64_t at = (tile - first) * count * TILE;
            functions.finish(finish, sums + at, others ? others + at : nullptr, count);
        }
    }
}

}  // namespace roslin
