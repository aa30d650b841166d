// Products of a layer in one call: what goes in is normed and cut into whole numbers once, the tiles of all outputs are
// shared out among the threads, and biases, activations and the residual are applied while a tile is at hand.

#include <algorithm>
#include <cstdlib>

#include "matrix.h"
#include "pool.h"
#include "product.h"
#include "rounded.h"
#include "rows.h"

namespace roslin {

namespace {

constexpr int64_t CHUNKS_A_THREAD = 6;        // so that a thread that is held up costs little
constexpr int64_t PREPARED_BY_ONE = 1 << 15;  // numbers that one thread prepares faster than two

int64_t up_to(int64_t number, int64_t multiple) { return (number + multiple - 1) / multiple * multiple; }

// Memory of one calling thread, which grows to what its calls need.
class Scratch {
  public:
    ~Scratch() { std::free(memory_); }

    char *of(int64_t bytes) {
        if (bytes > size_) {
            std::free(memory_);
            size_ = up_to(bytes, 4096);
            memory_ = static_cast<char *>(std::malloc(size_));
            if (!memory_) {
                size_ = 0;
                return nullptr;
            }
        }
        return memory_;
    }

  private:
    char *memory_ = nullptr;
    int64_t size_ = 0;
};

thread_local Scratch scratch;

const Matrix *matrix_of(const Work &work, int64_t input) {
    for (int64_t o = 0; o < work.output_count; ++o) {
        const Output &output = work.outputs[o];
        if (output.first_input == input) return output.first;
        if (output.second && output.second_input == input) return output.second;
    }
    return nullptr;
}

// Whether the matrices can read an input where it lies.
bool as_it_is(const Work &work, const Input &in, const Matrix &matrix) {
    return !work.rounded && in.norm == NO_NORM && in.gate == NO_ACTIVATION && !matrix.whole() &&
           in.width % matrix.block == 0 && in.stride == in.width;
}

// Lay out memory for rows from `start` on, prepared; with `base` null, only count it.
int64_t lay_out(Work &work, int64_t start, int64_t rows, char *base) {
    int64_t used = 0;
    auto take = [&](int64_t bytes) {
        char *place = base + used;
        used += up_to(bytes, 64);
        return place;
    };
    for (int64_t i = 0; i < work.input_count; ++i) {
        const Matrix *matrix = matrix_of(work, i);
        int64_t padded = up_to(work.inputs[i].width, matrix->block), count = rows * padded;
        int64_t blocks = padded / matrix->block;
        if (as_it_is(work, work.inputs[i], *matrix)) {
            work.places[i] = {};
            work.places[i].rows = {rows, padded, blocks, work.inputs[i].x + start * padded, nullptr, nullptr, nullptr,
                                   nullptr, nullptr, nullptr};
            continue;
        }
        Prepared to = {};
        to.padded = padded;
        to.plain = reinterpret_cast<float *>(take(4 * count));
        if (work.rounded) {
            to.rounded = reinterpret_cast<uint16_t *>(take(2 * count));
        } else if (matrix->whole()) {
            to.block = matrix->block;
            to.whole = reinterpret_cast<int16_t *>(take(2 * count));
            to.high = reinterpret_cast<int8_t *>(take(count));
            to.low = reinterpret_cast<int8_t *>(take(count));
            to.scale = reinterpret_cast<float *>(take(4 * rows * blocks));
            to.sum = reinterpret_cast<int32_t *>(take(4 * rows * blocks));
        }
        work.places[i].to = to;
        work.places[i].rows = {rows,    padded, blocks,   to.plain, to.whole,
                               to.high, to.low, to.scale, to.sum,   to.rounded};
    }
    return used;
}

// A tile's product with some rows, to sums [rows, TILE] that hold zeros.
void tile_sums(const Matrix &matrix, TileProduct product, int64_t tile, const Rows &x, int64_t first, int64_t rows,
               float *sums) {
    product(matrix, tile, x, first, rows, sums);
    if (!matrix.scale) return;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t o = 0; o < TILE; ++o) sums[r * TILE + o] *= matrix.scale[tile * TILE + o];
}

}  // namespace

bool prepare_slab(Work &work, int64_t start, int64_t count, int threads) {
    RowFunctions functions = row_functions();
    char *memory = scratch.of(1 + lay_out(work, start, count, nullptr));
    if (!memory) return false;
    lay_out(work, start, count, memory);

    int64_t numbers = 0;
    for (int64_t i = 0; i < work.input_count; ++i)
        if (work.places[i].to.plain) numbers += count * work.inputs[i].width;
    parallel(numbers > PREPARED_BY_ONE ? threads : 1, numbers ? count : 0, [&](int64_t row) {
        for (int64_t i = 0; i < work.input_count; ++i) {
            if (!work.places[i].to.plain) continue;
            Input in = work.inputs[i];
            in.x += start * in.stride;
            functions.prepare(in, row, work.places[i].to);
        }
    });
    return true;
}

Finish finish_of(const Output &output, int64_t tile, int64_t row, float *out, int64_t out_stride) {
    int64_t from = tile * TILE;
    Finish finish = {};
    finish.width = std::min(TILE, output.first->outputs - from);
    finish.activation = output.activation;
    finish.bias = output.bias ? output.bias + from : nullptr;
    finish.residual = output.residual ? output.residual + row * output.residual_stride + from : nullptr;
    finish.residual_stride = output.residual_stride;
    finish.out = out;
    finish.out_stride = out_stride;
    return finish;
}

void run_tile(const Work &work, const RowFunctions &functions, const Output &output, int64_t tile, int64_t start,
              int64_t count, float *out, int64_t out_stride) {
    TileProduct one = tile_product(static_cast<Kind>(output.first->kind));
    TileProduct two = output.second ? tile_product(static_cast<Kind>(output.second->kind)) : nullptr;
    for (int64_t row = 0; row < count; row += ROWS_AT_ONCE) {
        int64_t rows = std::min(ROWS_AT_ONCE, count - row);
        float sums[ROWS_AT_ONCE * TILE] = {};
        tile_sums(*output.first, one, tile, work.places[output.first_input].rows, row, rows, sums);
        Finish finish = finish_of(output, tile, start + row, out + row * out_stride, out_stride);
        if (!two) {
            functions.finish(finish, sums, nullptr, rows);
            continue;
        }
        float others[ROWS_AT_ONCE * TILE] = {};
        tile_sums(*output.second, two, tile, work.places[output.second_input].rows, row, rows, others);
        functions.finish(finish, sums, others, rows);
    }
}

namespace {

bool run_slab(Work &work, int64_t start, int64_t count, int threads) {
    if (!prepare_slab(work, start, count, threads)) return false;
    RowFunctions functions = row_functions();
    int64_t bytes = 0, tiles = 0;
    for (int64_t o = 0; o < work.output_count; ++o) {
        const Output &output = work.outputs[o];
        tiles += output.first->tiles();
        bytes += output.first->tiles() * output.first->tile_bytes();
        if (output.second) bytes += output.second->tiles() * output.second->tile_bytes();
    }
    // Waking a thread costs what it takes to read some 16 KiB.
    int used = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, bytes * count >> 14)));
    int64_t chunks = used == 1 ? 1 : std::min(tiles, used * CHUNKS_A_THREAD), each = (tiles + chunks - 1) / chunks;
    parallel_ranges(used, tiles, each, [&](int64_t begin, int64_t end) {
        int64_t before = 0;
        for (int64_t o = 0; o < work.output_count; ++o) {
            const Output &output = work.outputs[o];
            int64_t own = output.first->tiles();
            int64_t first = std::max(begin, before) - before, last = std::min(end, before + own) - before;
            float *out = output.out + start * output.out_stride;
            if (work.rounded) {
                run_rounded(work, functions, output, first, last, start, count, out + first * TILE);
            } else {
                for (int64_t t = first; t < last; ++t)
                    run_tile(work, functions, output, t, start, count, out + t * TILE, output.out_stride);
            }
            before += own;
        }
    });
    return true;
}

void turn_rows(const Turn &turn, float *out, int64_t out_stride, int64_t rows, int threads) {
    RowFunctions functions = row_functions();
    parallel(rows * turn.heads * turn.dims > PREPARED_BY_ONE ? threads : 1, rows,
             [&](int64_t row) { functions.turn(turn, row, out + row * out_stride); });
}

}  // namespace
}  // namespace roslin

// Run outputs over `rows` rows of the inputs, each input read by matrices of one kind and block. `turn` may be null.
// `rounded`: rows are rounded to bfloat16 where they meet a matrix, if roslin_rounds. False if there is no memory for what
// goes in between.
ROSLIN_API int roslin_run(const roslin::Input *inputs, int64_t input_count, const roslin::Output *outputs,
                          int64_t output_count, const roslin::Turn *turn, int64_t rows, int rounded, int threads) {
    using namespace roslin;
    Work work = {};
    work.rounded = rounded && rounded_product().product;
    work.inputs = inputs;
    work.input_count = input_count;
    work.outputs = outputs;
    work.output_count = output_count;
    for (int64_t start = 0; start < rows; start += SLAB)
        if (!run_slab(work, start, std::min(SLAB, rows - start), threads)) return 0;
    if (turn) turn_rows(*turn, outputs[turn->output].out, outputs[turn->output].out_stride, rows, threads);
    return 1;
}

// Turn heads in place: `out` [rows, heads and more].
ROSLIN_API void roslin_turn(const roslin::Turn *turn, float *out, int64_t out_stride, int64_t rows, int threads) {
    roslin::turn_rows(*turn, out, out_stride, rows, threads);
}
