// Threads sleep when there is nothing to do. Between the kernels of one step they wait awake for a moment, as a wake-up
// costs more than many a kernel; never longer than AWAKE, so that an idle engine leaves every core alone.

#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#include <sched.h>
#endif

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace roslin {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto AWAKE = std::chrono::microseconds(150);
constexpr int MOST_THREADS = 256;

// A ticket is a job's number (24 bits), how many chunks it has (20) and the next one to take (20). Whoever moves it on
// by one owns that chunk; a job stays in its place until all its chunks are done, so an owner can read it safely.
constexpr int FIELD = 20;
constexpr uint64_t MASK = (uint64_t{1} << FIELD) - 1;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

struct Pool {
    std::mutex calling;
    std::atomic<uint64_t> ticket{0};
    std::atomic<int64_t> done{0};
    void (*work)(void *, int64_t) = nullptr;
    void *context = nullptr;
    std::atomic<int> wanted{0};  // workers that may take part: others sleep on
    int workers = 0;

    std::mutex sleeping;
    std::condition_variable wake;
    int asleep = 0;

    // Take chunks until there are none.
    void help() {
        uint64_t seen = ticket.load(std::memory_order_acquire);
        while ((seen & MASK) < ((seen >> FIELD) & MASK)) {
            if (!ticket.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) continue;
            work(context, static_cast<int64_t>(seen & MASK));
            done.fetch_add(1, std::memory_order_release);
            seen = ticket.load(std::memory_order_acquire);
        }
    }

    bool has_work(int number) const {
        uint64_t seen = ticket.load(std::memory_order_acquire);
        return number < wanted.load(std::memory_order_relaxed) && (seen & MASK) < ((seen >> FIELD) & MASK);
    }

    void serve(int number) {
        for (;;) {
            auto until = Clock::now() + AWAKE;
            while (!has_work(number) && Clock::now() < until) {
                for (int i = 0; i < 32 && !has_work(number); ++i) relax();
            }
            if (!has_work(number)) {
                std::unique_lock<std::mutex> lock(sleeping);
                ++asleep;
                wake.wait(lock, [&] { return has_work(number); });
                --asleep;
            }
            help();
        }
    }

    void grow(int threads) {
        for (; workers < threads - 1; ++workers) std::thread(&Pool::serve, this, workers).detach();
    }

    void run(int threads, int64_t chunks, void (*task)(void *, int64_t), void *its_context) {
        grow(threads);
        work = task;
        context = its_context;
        done.store(0, std::memory_order_relaxed);
        wanted.store(threads - 1, std::memory_order_relaxed);
        uint64_t number = (ticket.load(std::memory_order_relaxed) >> (2 * FIELD)) + 1;
        {
            // Under the lock: a worker that is about to sleep either sees the ticket or is counted as asleep.
            std::lock_guard<std::mutex> lock(sleeping);
            ticket.store(number << (2 * FIELD) | static_cast<uint64_t>(chunks) << FIELD, std::memory_order_release);
            if (asleep) wake.notify_all();
        }
        help();
        for (int turns = 0; done.load(std::memory_order_acquire) < chunks; ++turns) {
            relax();
            // A core may be taken by somebody else just now, with one of our chunks on it.
            if (turns > 2000) std::this_thread::yield();
        }
    }
};

std::atomic<Pool *> pool{nullptr};
std::once_flag made;

void make() { pool.store(new Pool, std::memory_order_release); }  // never freed: its threads outlive main

Pool &the_pool() {
    std::call_once(made, [] {
        make();
#if !defined(_WIN32)
        pthread_atfork(nullptr, nullptr, make);  // a forked child has none of the threads
#endif
    });
    return *pool.load(std::memory_order_acquire);
}

thread_local bool inside = false;

}  // namespace

void run_chunks(int threads, int64_t chunks, void (*work)(void *, int64_t), void *context) {
    if (threads > MOST_THREADS) threads = MOST_THREADS;
    if (threads > chunks) threads = static_cast<int>(chunks);
    if (threads > 1 && !inside) {
        Pool &ours = the_pool();
        std::unique_lock<std::mutex> alone(ours.calling, std::try_to_lock);
        if (alone.owns_lock()) {
            inside = true;
            ours.run(threads, chunks, work, context);
            inside = false;
            return;
        }
    }
    for (int64_t chunk = 0; chunk < chunks; ++chunk) work(context, chunk);
}

}  // namespace roslin

// For tests: count how often each chunk is run.
ROSLIN_API void roslin_count_chunks(int32_t *counts, int64_t chunks, int threads) {
    roslin::parallel(threads, chunks, [&](int64_t chunk) { ++counts[chunk]; });
}
