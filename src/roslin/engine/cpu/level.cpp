#include "level.h"

#include <atomic>

#include "pool.h"

#if defined(ROSLIN_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace roslin {
namespace {

Level found() {
#if defined(ROSLIN_X86)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (avx512 && __builtin_cpu_supports("avx512vnni")) return AVX512_VNNI;
    if (avx512) return AVX512;
    return avx2 ? AVX2 : PORTABLE;
#elif defined(ROSLIN_ARM)
#if defined(__linux__)
    constexpr unsigned long DOT_PRODUCT = 1UL << 20;  // HWCAP_ASIMDDP
    return getauxval(AT_HWCAP) & DOT_PRODUCT ? NEON_DOT : NEON;
#elif defined(__APPLE__)
    return NEON_DOT;  // every processor of Apple's own
#else
    return NEON;
#endif
#else
    return PORTABLE;
#endif
}

const Level HIGHEST = found();
std::atomic<Level> used{HIGHEST};

}  // namespace

Level level() { return used.load(std::memory_order_relaxed); }

}  // namespace roslin

// The level in use.
ROSLIN_API int roslin_level() { return roslin::level(); }

// Use at most this level, for tests and comparisons; one that the processor lacks changes nothing. The level now used.
ROSLIN_API int roslin_use_level(int wanted) {
    using namespace roslin;
    bool arm = HIGHEST >= NEON;
    bool exists = wanted == PORTABLE || ((wanted >= NEON) == arm && wanted <= HIGHEST);
    if (exists) used.store(static_cast<Level>(wanted), std::memory_order_relaxed);
    return used.load(std::memory_order_relaxed);
}
