// Attention over rows laid out so that what they begin with is there once: each token sees the tokens of its own path.
//
// A token's result depends on nothing but its path's tokens in their order: neither on where they lie, nor on what is
// computed beside it, nor on threads.

#include <cmath>
#include <cstdint>
#include <cstring>

#include "level.h"
#include "numbers.h"
#include "pool.h"

namespace {

// Tokens of one path that lie one behind the other.
struct Run {
    int32_t first;   // where the first lies
    int32_t count;
    int32_t path;    // where its path begins in `paths`: the places of all tokens from the beginning to the last of these
    int32_t before;  // how many tokens of the path stand before the first
};

// What one call is about: tokens of heads · head_dim numbers, or groups · head_dim, so many numbers apart.
struct Chains {
    void *out;
    const void *q, *keys, *values;
    const int32_t *paths;
    const Run *runs;
    int64_t q_stride, key_stride, value_stride;
    int64_t heads, groups, head_dim;
    int64_t window;  // how many tokens back a token sees, itself among them; 0 is all
    float scale;
};

using Work = void (*)(const Chains &, int64_t run);

}  // namespace

#define ROSLIN_BODY "chain_run.h"
#include "every_lane.inl"

// dtype: 0 float32, 1 bfloat16, of everything. `runs` are as Run has them.
ROSLIN_API void roslin_chain_attention(void *out, const void *q, const void *keys, const void *values,
                                       const int32_t *paths, const int32_t *runs, int64_t count, int64_t q_stride,
                                       int64_t key_stride, int64_t value_stride, int64_t heads, int64_t groups,
                                       int64_t head_dim, int64_t window, float scale, int dtype, int threads) {
    Chains c{out,        q,            keys,  values, paths,    reinterpret_cast<const Run *>(runs), q_stride,
             key_stride, value_stride, heads, groups, head_dim, window,                              scale};
    Work work = dtype == 1 ? work_of<BFloat16>(roslin::level()) : work_of<float>(roslin::level());
    roslin::parallel(threads, count, [&](int64_t run) { work(c, run); });
}
