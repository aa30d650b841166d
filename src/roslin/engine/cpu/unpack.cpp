#include <cstring>

#include "level.h"
#include "matrix.h"

namespace roslin {

namespace portable {
namespace {
#include "unpack.inl"
}
}  // namespace portable

#if defined(ROSLIN_X86)

ROSLIN_BEGIN_AVX2
namespace avx2 {
namespace {
#include "unpack.inl"
}
}  // namespace avx2
ROSLIN_END

ROSLIN_BEGIN_AVX512
namespace avx512 {
namespace {
#include "unpack.inl"
}
}  // namespace avx512
ROSLIN_END

#endif

UnpackTile unpack_tile() {
#if defined(ROSLIN_X86)
    Level now = level();
    if (now == AVX512 || now == AVX512_VNNI) return avx512::unpack;
    if (now == AVX2) return avx2::unpack;
#endif
    return portable::unpack;
}

}  // namespace roslin
