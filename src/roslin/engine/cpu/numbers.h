// Numbers of the dtypes that attention reads and writes, and room for what stands between.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct BFloat16 {
    uint16_t bits;
};

inline float widened(float x) { return x; }

inline float widened(BFloat16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float wide;
    std::memcpy(&wide, &bits, 4);
    return wide;
}

inline void narrow(float x, float *to) { *to = x; }

// To the nearest, halfway to even; a NaN stays one.
inline void narrow(float x, BFloat16 *to) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    to->bits = x != x ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Room for one thread's work that is kept from call to call. It begins at a cache line, lest every second vector lie on
// two.
inline float *scratch(int64_t numbers) {
    constexpr int64_t LINE = 64 / sizeof(float);
    thread_local std::vector<float> room;
    if (static_cast<int64_t>(room.size()) < numbers + LINE) room.resize(numbers + LINE);
    uintptr_t start = reinterpret_cast<uintptr_t>(room.data());
    return room.data() + (64 - start % 64) % 64 / sizeof(float);
}

}  // namespace
