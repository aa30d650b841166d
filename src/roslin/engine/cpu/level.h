// Which instructions the kernels use, chosen at run time.
#pragma once

namespace roslin {

// Upwards in speed within a kind of processor. A kernel that has no form for a level uses the next lower one it has.
enum Level { PORTABLE = 0, AVX2 = 1, AVX512 = 2, AVX512_VNNI = 3, NEON = 10, NEON_DOT = 11 };

// The level in use: the highest that this processor has, unless a lower one was asked for.
Level level();

}  // namespace roslin

// Functions between ROSLIN_BEGIN_… and ROSLIN_END may use those instructions, whatever the compiler is told to build
// for. Include every header before: an inline function of theirs compiled in between could be used on lesser machines.
#define ROSLIN_PRAGMA(TEXT) _Pragma(#TEXT)
#if defined(__clang__)
#define ROSLIN_BEGIN(TARGET) ROSLIN_PRAGMA(clang attribute push(__attribute__((target(TARGET))), apply_to = function))
#define ROSLIN_END _Pragma("clang attribute pop")
#else
#define ROSLIN_BEGIN(TARGET) _Pragma("GCC push_options") ROSLIN_PRAGMA(GCC target(TARGET))
#define ROSLIN_END _Pragma("GCC pop_options")
#endif

#if defined(__x86_64__)
#define ROSLIN_X86 1
#include <immintrin.h>
#define ROSLIN_BEGIN_AVX2 ROSLIN_BEGIN("avx2,fma,f16c")
#define ROSLIN_BEGIN_AVX512 ROSLIN_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")
#define ROSLIN_BEGIN_VNNI ROSLIN_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#define ROSLIN_BEGIN_BF16 ROSLIN_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")
#elif defined(__aarch64__)
#define ROSLIN_ARM 1
#include <arm_neon.h>
#if defined(__clang__)
#define ROSLIN_BEGIN_DOT ROSLIN_BEGIN("dotprod")
#else
#define ROSLIN_BEGIN_DOT ROSLIN_BEGIN("arch=armv8.2-a+dotprod")
#endif
#endif
