// Compiles the file that ROSLIN_BODY names once for each level of instructions, in a namespace of its own. It is included
// within the namespace roslin, behind every header that the file needs; the file has no guard and includes nothing.

namespace portable {
namespace {
#include ROSLIN_BODY
}
}  // namespace portable

#if defined(ROSLIN_X86)

ROSLIN_BEGIN_AVX2
namespace avx2 {
namespace {
#include ROSLIN_BODY
}
}  // namespace avx2
ROSLIN_END

ROSLIN_BEGIN_AVX512
namespace avx512 {
namespace {
#include ROSLIN_BODY
}
}  // namespace avx512
ROSLIN_END

#endif
