// The draw of a token for each row of logits, from its most probable ones: what sampler.py does with tensors.
//
// Of the candidates the one with the least exponential / probability wins, which draws each with its probability; noise
// comes from hashing the row's key and the token's id (noise.py). A row's nucleus is found without sorting it: weights
// are gathered into buckets of like size, and only the bucket in which the nucleus ends is sorted.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "pool.h"
#include "rows.h"

namespace roslin {
namespace {

constexpr int SHIFT = 19;  // bits of a float below its exponent and the first four of its mantissa
constexpr int64_t BUCKETS = (0x3F800000 >> SHIFT) + 1;  // weights are 0 to 1

// How a row is drawn; `temperature` 0 takes the highest logit, `top_k` 0 and `top_p` from 1 on leave nothing out.
struct Draw {
    float temperature, top_p;
    int64_t top_k, key;
};

struct Candidate {
    float logit, weight;
    int32_t id;
};

// The more probable ones first, by their logits: at high temperatures weights are level that are not alike. Of equal ones
// the lower id.
bool before(const Candidate &a, const Candidate &b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

// A row's weights by size, in memory that a thread keeps.
struct Room {
    std::vector<float> weights;
    std::vector<double> sums;
    std::vector<int32_t> counts;
    std::vector<Candidate> last;
};

int64_t bucket_of(float weight) {
    int32_t bits;
    std::memcpy(&bits, &weight, sizeof bits);
    return bits >> SHIFT;
}

// The candidates of a row: every weight in a bucket above `bucket`, and of those in it the first `last` ones.
struct Cut {
    int64_t bucket;
    std::vector<Candidate> *last;
    double sum;  // of all their weights
};

void gather(Room &room, int64_t count) {
    std::fill(room.sums.begin(), room.sums.end(), 0.0);
    std::fill(room.counts.begin(), room.counts.end(), 0);
    for (int64_t i = 0; i < count; ++i) {
        int64_t bucket = bucket_of(room.weights[i]);
        room.sums[bucket] += room.weights[i];
        ++room.counts[bucket];
    }
}

// A bucket's candidates, the most probable first.
void sort_bucket(Room &room, const float *logits, int64_t count, int64_t bucket) {
    room.last.clear();
    for (int64_t i = 0; i < count; ++i)
        if (bucket_of(room.weights[i]) == bucket && room.weights[i] > 0)
            room.last.push_back({logits[i], room.weights[i], static_cast<int32_t>(i)});
    std::sort(room.last.begin(), room.last.end(), before);
}

// The `top_k` heaviest.
Cut heaviest(Room &room, const float *logits, int64_t count, int64_t top_k) {
    int64_t bucket = BUCKETS - 1, above = 0;
    double sum = 0;
    while (bucket > 0 && above + room.counts[bucket] < top_k) {
        above += room.counts[bucket];
        sum += room.sums[bucket--];
    }
    sort_bucket(room, logits, count, bucket);
    if (static_cast<int64_t>(room.last.size()) > top_k - above) room.last.resize(top_k - above);
    for (const Candidate &one : room.last) sum += one.weight;
    return {bucket, &room.last, sum};
}

// Of the candidates of `whole`, the heaviest ones: each whose heavier ones do not come to `share` of all together.
Cut nucleus(Room &room, const float *logits, int64_t count, const Cut &whole, double share) {
    double goal = share * whole.sum, sum = 0;
    int64_t bucket = BUCKETS - 1;
    while (bucket > whole.bucket && sum + room.sums[bucket] < goal) sum += room.sums[bucket--];
    if (bucket > whole.bucket) sort_bucket(room, logits, count, bucket);
    size_t kept = 0;
    while (kept < room.last.size() && sum < goal) sum += room.last[kept++].weight;
    room.last.resize(kept);
    return {bucket, &room.last, sum};
}

uint64_t mixed(uint64_t value) {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
    return value ^ (value >> 31);
}

// The race: the candidate with the most weight / exponential.
struct Race {
    uint64_t key;
    double best = 0;
    int64_t winner = -1;

    void enter(float weight, int64_t id) {
        uint64_t bits = mixed(static_cast<uint64_t>(id) * 0x9E3779B97F4A7C15ULL + key);
        double uniform = (static_cast<double>(bits >> 12) + 0.5) * 0x1p-52;
        // -log(u) is at least 1 - u: who cannot win with that needs no logarithm.
        if (winner >= 0 && best * (1.0 - uniform) > weight) return;
        double speed = weight / -std::log(uniform);
        if (winner >= 0 && !(speed > best)) return;
        best = speed;
        winner = id;
    }
};

int64_t drawn(const RowFunctions &functions, const float *logits, int64_t count, const Draw &how) {
    Outlook outlook = functions.outlook(logits, count);
    int64_t first = std::min(outlook.first, count - 1);
    if (how.temperature == 0) return first;
    if (!(outlook.sum >= 1)) return first;  // no numbers: whoever reads the draw's probability finds that out
    thread_local Room room;
    room.weights.resize(count);
    functions.weights(logits, count, outlook.most, 1.0f / how.temperature, room.weights.data());
    Race race{static_cast<uint64_t>(how.key)};
    if (how.top_p >= 1 && how.top_k == 0) {
        for (int64_t i = 0; i < count; ++i) race.enter(room.weights[i], i);
        return race.winner;
    }
    room.sums.resize(BUCKETS);
    room.counts.resize(BUCKETS);
    gather(room, count);
    Cut cut = {-1, &room.last, 0};
    room.last.clear();
    if (how.top_k > 0 && how.top_k < count) {
        cut = heaviest(room, logits, count, how.top_k);
    } else {
        for (double sum : room.sums) cut.sum += sum;
    }
    if (how.top_p < 1) cut = nucleus(room, logits, count, cut, how.top_p);
    for (int64_t i = 0; i < count; ++i)
        if (bucket_of(room.weights[i]) > cut.bucket) race.enter(room.weights[i], i);
    for (const Candidate &one : *cut.last) race.enter(one.weight, one.id);
    return race.winner < 0 ? first : race.winner;
}

}  // namespace
}  // namespace roslin

// Ids [rows] drawn from the first `count` logits of each row.
ROSLIN_API void roslin_draw(const float *logits, int64_t stride, int64_t rows, int64_t count, const float *temperatures,
                            const float *top_ps, const int64_t *top_ks, const int64_t *keys, int64_t *ids, int threads) {
    using namespace roslin;
    RowFunctions functions = row_functions();
    parallel(threads, rows, [&](int64_t row) {
        ids[row] = drawn(functions, logits + row * stride, count, {temperatures[row], top_ps[row], top_ks[row], keys[row]});
    });
}

// The logarithm of each row's sum of exponentials, [rows].
ROSLIN_API void roslin_log_sums(const float *logits, int64_t stride, int64_t rows, int64_t count, float *out,
                                int threads) {
    using namespace roslin;
    RowFunctions functions = row_functions();
    parallel(threads, rows, [&](int64_t row) {
        Outlook outlook = functions.outlook(logits + row * stride, count);
        out[row] = outlook.most + std::log(outlook.sum);
    });
}
