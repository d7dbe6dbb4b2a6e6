// Enough of CUDA to run our kernels on a processor, one block after the other, so that tests see their numbers
// without a device. The threads of a block are contexts on one processor thread, each of which runs until it
// waits: what a kernel says is executed to the letter, but nothing about speed, and no two accesses ever race.
// They take turns upwards or downwards, and a kernel that lacks a barrier tells the two apart.

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ thread_local  // of all contexts of one processor thread

using std::max;
using std::min;

struct alignas(8) float2 {
    float x, y;
};
struct dim3 {
    unsigned x, y, z;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline unsigned __float_as_uint(float a) {
    unsigned bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned a) {
    float value;
    memcpy(&value, &a, sizeof value);
    return value;
}
inline void sincospif(float a, float* sine, float* cosine) {
    *sine = (float)std::sin(M_PI * a);
    *cosine = (float)std::cos(M_PI * a);
}
inline float atomicAdd(float* at, float value) { return std::exchange(*at, *at + value); }
inline float atomicExch(float* at, float value) { return std::exchange(*at, value); }
inline unsigned atomicMax(unsigned* at, unsigned value) { return std::exchange(*at, max(*at, value)); }

inline dim3 blockIdx, threadIdx, blockDim, gridDim;

namespace host {

const int MOST_THREADS = 1024, WARP = 32;
const size_t STACK_BYTES = 64 * 1024, MOST_SHARED_BYTES = 227 * 1024;

struct Barrier {
    int n_waiting = 0, n_passed = 0;
};

struct Thread {
    ucontext_t start;
    jmp_buf here;
    bool has_started = false, is_done = true;
    Barrier* waits_for = nullptr;
    int passes = 0;  // that the barrier waited for had seen before
    std::unique_ptr<char[]> stack;
};

inline Thread threads[MOST_THREADS];
inline Barrier block_barrier, warp_barriers[MOST_THREADS / WARP];
inline float exchanged[MOST_THREADS];
inline int current = 0;
inline jmp_buf scheduler;
inline std::function<void()> kernel;

// Contexts are never left: each runs one thread of one block after another on the same stack.
inline void live() {
    for (;;) {
        kernel();
        threads[current].is_done = true;
        if (!_setjmp(threads[current].here)) _longjmp(scheduler, 1);
    }
}

inline void wait(Barrier& barrier, int n_threads) {
    Thread& thread = threads[current];
    if (++barrier.n_waiting == n_threads) {
        barrier.n_waiting = 0;
        ++barrier.n_passed;
        return;
    }
    thread.waits_for = &barrier;
    thread.passes = barrier.n_passed;
    if (!_setjmp(thread.here)) _longjmp(scheduler, 1);
    thread.waits_for = nullptr;
}

inline void resume(int number) {
    Thread& thread = threads[number];
    current = number;
    threadIdx = {(unsigned)number, 0, 0};
    if (_setjmp(scheduler)) return;
    if (thread.has_started) _longjmp(thread.here, 1);
    thread.has_started = true;
    thread.stack = std::make_unique<char[]>(STACK_BYTES);
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = thread.stack.get();
    thread.start.uc_stack.ss_size = STACK_BYTES;
    makecontext(&thread.start, live, 0);
    setcontext(&thread.start);
}

inline void run_block(int n_threads, bool is_downwards) {
    for (int number = 0; number < n_threads; ++number) threads[number].is_done = false;
    for (int n_left = n_threads; n_left > 0;) {
        bool has_moved = false;
        for (int turn = 0; turn < n_threads; ++turn) {
            const int number = is_downwards ? n_threads - 1 - turn : turn;
            Thread& thread = threads[number];
            if (thread.is_done || (thread.waits_for && thread.waits_for->n_passed == thread.passes)) continue;
            resume(number);
            has_moved = true;
            n_left -= thread.is_done;
        }
        if (!has_moved) {
            fprintf(stderr, "cuda_on_host: a barrier that not all threads reach\n");
            abort();
        }
    }
}

}  // namespace host

inline void __syncthreads() { host::wait(host::block_barrier, blockDim.x); }

inline float __shfl_down_sync(unsigned, float value, int distance) {
    const int lane = threadIdx.x % host::WARP, number = threadIdx.x;
    host::Barrier& warp = host::warp_barriers[number / host::WARP];
    host::exchanged[number] = value;
    host::wait(warp, host::WARP);
    const float result = host::exchanged[lane + distance < host::WARP ? number + distance : number];
    host::wait(warp, host::WARP);
    return result;
}

// The dynamic shared memory of fused.cu, and room in which writing beyond what was asked for is found.
thread_local float2 tile[host::MOST_SHARED_BYTES / sizeof(float2)];

namespace host {

// Runs a kernel as cuLaunchKernel would, from pointers to its arguments; returns 0 if all went well.
template <class... Arguments, size_t... I>
int launch(void (*function)(Arguments...), std::index_sequence<I...>, dim3 grid, int n_threads,
           size_t shared_bytes, bool is_downwards, void** arguments) {
    const char untouched = 0x5a;
    char* shared = reinterpret_cast<char*>(tile);
    memset(shared, untouched, MOST_SHARED_BYTES);
    kernel = [=] { function(*static_cast<std::remove_reference_t<Arguments>*>(arguments[I])...); };
    gridDim = grid;
    blockDim = {(unsigned)n_threads, 1, 1};
    for (unsigned y = 0; y < grid.y; ++y)
        for (unsigned x = 0; x < grid.x; ++x) {
            blockIdx = {x, y, 0};
            run_block(n_threads, is_downwards);
        }
    return std::any_of(shared + shared_bytes, shared + MOST_SHARED_BYTES,
                       [](char c) { return c != untouched; });
}

template <class... Arguments>
int launch(void (*function)(Arguments...), dim3 grid, int n_threads, size_t shared_bytes, bool is_downwards,
           void** arguments) {
    return launch(function, std::index_sequence_for<Arguments...>(), grid, n_threads, shared_bytes,
                  is_downwards, arguments);
}

}  // namespace host
