// Attention of single tokens over the paged cache: keys and values [blocks, groups, block, head_dim], by block tables.
//
// A token's result depends on nothing but its own sequence: neither on what is computed beside it nor on threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "level.h"
#include "numbers.h"
#include "pool.h"

namespace {

// What one call is about. `q` and `out` hold tokens of heads · head_dim numbers; those of `q` lie `q_stride` apart.
struct Attention {
    float *out;
    const float *q;
    const void *keys, *values;
    const int32_t *tables, *slots, *lengths;
    int64_t q_stride, table_stride;
    int64_t tokens, heads, groups, head_dim, block;
    int64_t window;  // how many places back a token sees, itself among them; 0 is all
    float scale;
};

using Work = void (*)(const Attention &, int64_t token, int64_t group);

}  // namespace

#define ROSLIN_BODY "attention_token.h"
#include "every_lane.inl"

namespace {

// Put rows of `groups` · `head_dim` numbers, which lie `stride` apart, to places that count all of the cache's.
template <typename T>
void write(T *cache, const float *x, const int64_t *places, int64_t stride, int64_t tokens, int64_t groups,
           int64_t head_dim, int64_t block) {
    for (int64_t token = 0; token < tokens; ++token) {
        int64_t first = places[token] / block * groups * block + places[token] % block;
        for (int64_t group = 0; group < groups; ++group) {
            const float *from = x + token * stride + group * head_dim;
            T *to = cache + (first + group * block) * head_dim;
            for (int64_t k = 0; k < head_dim; ++k) narrow(from[k], to + k);
        }
    }
}

}  // namespace

// dtype: 0 float32, 1 bfloat16, of keys and values in the cache.
ROSLIN_API void roslin_paged_attention(float *out, const float *q, const void *keys, const void *values,
                                       const int32_t *tables, const int32_t *slots, const int32_t *lengths,
                                       int64_t q_stride, int64_t table_stride, int64_t tokens, int64_t heads,
                                       int64_t groups, int64_t head_dim, int64_t block, int64_t window, float scale,
                                       int dtype, int threads) {
    Attention a{out,    q,     keys,   values,   tables, slots,  lengths, q_stride, table_stride,
                tokens, heads, groups, head_dim, block,  window, scale};
    Work work = dtype == 1 ? work_of<BFloat16>(roslin::level()) : work_of<float>(roslin::level());
    roslin::parallel(threads, tokens * groups,
                     [&](int64_t chunk) { work(a, chunk / groups, chunk % groups); });
}

// Put keys and values [tokens, groups, head_dim] into the cache, whose dtype is as above; places[token] counts all of its
// places, block after block.
ROSLIN_API void roslin_paged_write(void *keys, void *values, const float *k, const float *v, const int64_t *places,
                                   int64_t k_stride, int64_t v_stride, int64_t tokens, int64_t groups,
                                   int64_t head_dim, int64_t block, int dtype) {
    auto both = [&](auto *to_keys, auto *to_values) {
        write(to_keys, k, places, k_stride, tokens, groups, head_dim, block);
        write(to_values, v, places, v_stride, tokens, groups, head_dim, block);
    };
    if (dtype == 1) both(static_cast<BFloat16 *>(keys), static_cast<BFloat16 *>(values));
    else both(static_cast<float *>(keys), static_cast<float *>(values));
}
