// Log-probabilities of given outputs of a product, such as a head's: of the logits there are never more than those of
// some rows, in memory that is kept.

#include <algorithm>
#include <cmath>
#include <vector>

#include "pool.h"
#include "product.h"

namespace roslin {
namespace {

constexpr int64_t MOST_LOGITS = 1 << 23;
constexpr int64_t TILES_AT_ONCE = 8;  // that a thread takes

// Row n is asked for the outputs `targets` from starts[n] to starts[n + 1]. `logprobs` and `first` have a number for each.
struct Asked {
    const int64_t *starts, *targets;
    float *logprobs, *first;
};

void ask(const Asked &asked, int64_t row, const float *logits, const Outlook &outlook) {
    double log = std::log(static_cast<double>(outlook.sum));
    for (int64_t t = asked.starts[row]; t < asked.starts[row + 1]; ++t) {
        double logit = logits[asked.targets[t]];
        asked.logprobs[t] = static_cast<float>(logit - outlook.most - log);
        asked.first[t] = asked.targets[t] == outlook.first;
    }
}

}  // namespace
}  // namespace roslin

// The log-probabilities of targets among the outputs of one input's product, and 1 where one is the first choice: of
// equal ones the lowest is. False if there is no memory for what goes in between.
ROSLIN_API int roslin_target_logprobs(const roslin::Input *input, const roslin::Output *head, int64_t rows,
                                      const int64_t *starts, const int64_t *targets, float *logprobs, float *first,
                                      int threads) {
    using namespace roslin;
    Work work = {};
    work.inputs = input;
    work.input_count = 1;
    work.outputs = head;
    work.output_count = 1;
    RowFunctions functions = row_functions();
    Asked asked = {starts, targets, logprobs, first};
    // Rows a little further apart than they are long: a power of 2 would put all of them into a few lines of a cache.
    int64_t tiles = head->first->tiles(), stride = (tiles + 1) * TILE;
    int64_t at_once = std::max(ROWS_AT_ONCE, std::min({rows, SLAB, MOST_LOGITS / stride}));
    thread_local std::vector<float> room;
    if (static_cast<int64_t>(room.size()) < at_once * stride) room.resize(at_once * stride);
    float *logits = room.data();
    for (int64_t start = 0; start < rows; start += at_once) {
        int64_t count = std::min(at_once, rows - start);
        if (!prepare_slab(work, start, count, threads)) return 0;
        parallel_ranges(threads, tiles, TILES_AT_ONCE, [&](int64_t begin, int64_t end) {
            for (int64_t tile = begin; tile < end; ++tile)
                run_tile(work, functions, *head, tile, start, count, logits + tile * TILE, stride);
        });
        parallel(threads, count, [&](int64_t row) {
            const float *own = logits + row * stride;
            ask(asked, start + row, own, functions.outlook(own, head->first->outputs));
        });
    }
    return 1;
}
