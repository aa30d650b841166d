#include "rows.h"

#include <cmath>

#include "level.h"

namespace roslin {

#define ROSLIN_BODY "rows.inl"
#include "every_level.inl"

RowFunctions row_functions() {
#if defined(ROSLIN_X86)
    Level now = level();
    if (now == AVX512 || now == AVX512_VNNI) return {avx512::prepare, avx512::finish, avx512::turn, avx512::outlook, avx512::weights};
    if (now == AVX2) return {avx2::prepare, avx2::finish, avx2::turn, avx2::outlook, avx2::weights};
#endif
    return {portable::prepare, portable::finish, portable::turn, portable::outlook, portable::weights};
}

}  // namespace roslin
