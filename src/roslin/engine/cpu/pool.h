// A small pool of threads for kernels that take microseconds to milliseconds.
#pragma once

#include <cstdint>

// The C interface that ctypes loads: every function for Python is marked with it.
#if defined(_WIN32)
#define ROSLIN_API extern "C" __declspec(dllexport)
#else
#define ROSLIN_API extern "C" __attribute__((visibility("default")))
#endif

namespace roslin {

// Run `work(context, chunk)` once for each chunk in 0 … chunks - 1 (at most 2^20 - 1) on up to `threads` threads, the
// caller's among them, and return when all are done. Which thread takes which chunk is left to chance: a result must
// not depend on it. A second caller at the same time, and a call from within `work`, runs its chunks by itself.
void run_chunks(int threads, int64_t chunks, void (*work)(void *context, int64_t chunk), void *context);

// The same for anything that can be called with the number of a chunk.
template <typename Work>
void parallel(int threads, int64_t chunks, Work &&work) {
    struct Call {
        static void once(void *context, int64_t chunk) { (*static_cast<Work *>(context))(chunk); }
    };
    run_chunks(threads, chunks, &Call::once, const_cast<void *>(static_cast<const void *>(&work)));
}

// Cut `count` things into chunks of `each` (the last may be smaller), and run `work(begin, end)` for each.
template <typename Work>
void parallel_ranges(int threads, int64_t count, int64_t each, Work &&work) {
    parallel(threads, (count + each - 1) / each, [&](int64_t chunk) {
        int64_t begin = chunk * each, end = begin + each < count ? begin + each : count;
        work(begin, end);
    });
}

}  // namespace roslin
