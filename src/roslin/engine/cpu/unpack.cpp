#include <cstring>

#include "level.h"
#include "matrix.h"

namespace roslin {

#define ROSLIN_BODY "unpack.inl"
#include "every_level.inl"

UnpackTile unpack_tile() {
#if defined(ROSLIN_X86)
    Level now = level();
    if (now == AVX512 || now == AVX512_VNNI) return avx512::unpack;
    if (now == AVX2) return avx2::unpack;
#endif
    return portable::unpack;
}

}  // namespace roslin
