#include "rows.h"

#include <cmath>

#include "level.h"

namespace roslin {

namespace portable {
namespace {
#include "rows.inl"
}
}  // namespace portable

#if defined(ROSLIN_X86)

ROSLIN_BEGIN_AVX2
namespace avx2 {
namespace {
#include "rows.inl"
}
}  // namespace avx2
ROSLIN_END

ROSLIN_BEGIN_AVX512
namespace avx512 {
namespace {
#include "rows.inl"
}
}  // namespace avx512
ROSLIN_END

#endif

RowFunctions row_functions() {
#if defined(ROSLIN_X86)
    Level now = level();
    if (now == AVX512 || now == AVX512_VNNI) return {avx512::prepare, avx512::activate, avx512::turn};
    if (now == AVX2) return {avx2::prepare, avx2::activate, avx2::turn};
#endif
    return {portable::prepare, portable::activate, portable::turn};
}

}  // namespace roslin
