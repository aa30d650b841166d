// Compiles the file that ROSLIN_BODY names once for each width of registers, behind lanes.h, in a namespace of its own.
// It is included outside of every namespace, behind all headers that the file needs and behind `Work`, the type of what
// the file calls attend<T>; the file has no guard and includes nothing.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are only passed between functions that are inlined
#endif
#if defined(ROSLIN_X86)
ROSLIN_BEGIN_AVX512
namespace avx512 {
namespace {
#define ROSLIN_LANES 16
#include "lanes.h"
#include ROSLIN_BODY
#undef ROSLIN_LANES
#undef ROSLIN_INLINE
}
}  // namespace avx512
ROSLIN_END
ROSLIN_BEGIN_AVX2
namespace avx2 {
namespace {
#define ROSLIN_LANES 8
#include "lanes.h"
#include ROSLIN_BODY
#undef ROSLIN_LANES
#undef ROSLIN_INLINE
}
}  // namespace avx2
ROSLIN_END
#endif
namespace portable {
namespace {
#define ROSLIN_LANES 4
#include "lanes.h"
#include ROSLIN_BODY
#undef ROSLIN_LANES
#undef ROSLIN_INLINE
}
}  // namespace portable

namespace {

// What fits a level's registers.
template <typename T>
Work work_of(roslin::Level level) {
#if defined(ROSLIN_X86)
    if (level >= roslin::AVX512 && level < roslin::NEON) return avx512::attend<T>;
    if (level == roslin::AVX2) return avx2::attend<T>;
#endif
    (void)level;
    return portable::attend<T>;
}

}  // namespace
