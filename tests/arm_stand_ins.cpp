// What the C++ kernels have from others, for a library that an emulator runs (arm_emulator.py): memory that is never
// given back, one thread, and mathematics that the emulator's own machine does.

#include <cstddef>
#include <cstdint>

#include "pool.h"

namespace {

constexpr size_t HEAP = 512 << 20;
alignas(64) char heap[HEAP];
size_t taken = 0;

}  // namespace

// The emulator answers `svc`: w8 says which function is asked for, v0 has its number.
#define ROSLIN_ELSEWHERE(TYPE, NAME, NUMBER) \
    extern "C" __attribute__((naked)) TYPE NAME(TYPE) { asm("mov w8, #" #NUMBER "\nsvc #0\nret"); }
ROSLIN_ELSEWHERE(double, log, 1)
ROSLIN_ELSEWHERE(float, logf, 2)
ROSLIN_ELSEWHERE(float, exp2f, 3)

extern "C" {

void *__dso_handle = nullptr;
unsigned long roslin_test_capabilities;  // what Linux would say that the processor has

unsigned long getauxval(unsigned long) { return roslin_test_capabilities; }
int madvise(void *, size_t, int) { return 0; }
int __cxa_thread_atexit(void (*)(void *), void *, void *) { return 0; }
[[noreturn]] void abort() { __builtin_trap(); }

void *malloc(size_t bytes) {
    size_t begin = (taken + 63) / 64 * 64;
    if (bytes > HEAP - begin) return nullptr;
    taken = begin + bytes;
    return heap + begin;
}

void free(void *) {}

void *memcpy(void *to, const void *from, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) static_cast<char *>(to)[i] = static_cast<const char *>(from)[i];
    return to;
}

void *memset(void *to, int value, size_t bytes) {
    for (size_t i = 0; i < bytes; ++i) static_cast<char *>(to)[i] = static_cast<char>(value);
    return to;
}

}  // extern "C"

void *operator new(size_t bytes) { return malloc(bytes); }
void operator delete(void *, size_t) noexcept {}

namespace std {
inline namespace __1 {
[[noreturn]] void __libcpp_verbose_abort(const char *, ...) noexcept { __builtin_trap(); }
}  // namespace __1
}  // namespace std

namespace roslin {

void run_chunks(int, int64_t chunks, void (*work)(void *, int64_t), void *context) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) work(context, chunk);
}

}  // namespace roslin
