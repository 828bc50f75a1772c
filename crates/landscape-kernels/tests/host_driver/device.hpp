// A device made of one thread of the processor: what a `.cu` file needs to compile as C++ and to run without a GPU.
//
// Blocks run one after another. The threads of a block that meet at barriers are fibers, switched where they wait; the threads of
// kernels without barriers are a plain loop. `__shared__` is static memory, of which one block at a time makes use.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

struct dim3 {
    unsigned x, y, z;
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __grid_constant__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)

struct float4 {
    float x, y, z, w;
};
struct double2 {
    double x, y;
};

namespace host {

// The places where a thread waits for others.
enum class Wait { Block, Warp };
void wait(Wait where);

// The slot of a thread of this block that shuffles pass values through.
void *slot(unsigned thread);
unsigned thread_number();
unsigned n_threads();

template <typename T>
T shuffle(T value, unsigned source_lane)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most eight bytes");
    unsigned own = thread_number(), source = own / 32 * 32 + source_lane;
    std::memcpy(slot(own), &value, sizeof(T));
    wait(Wait::Warp);
    if (source_lane < 32 && source < n_threads()) {
        std::memcpy(&value, slot(source), sizeof(T));
    }
    wait(Wait::Warp);
    return value;
}

using Invoke = void (*)(void **arguments);

// A kernel by name, with arguments as cuLaunchKernel takes them: a pointer to each.
struct Register {
    Register(const char *name, Invoke invoke, bool waits);
};

template <auto Kernel>
struct Call;
template <typename... Arguments, void (*Kernel)(Arguments...)>
struct Call<Kernel> {
    template <std::size_t... I>
    static void with(void **arguments, std::index_sequence<I...>)
    {
        Kernel(*static_cast<Arguments *>(arguments[I])...);
    }
    static void invoke(void **arguments) { with(arguments, std::index_sequence_for<Arguments...>{}); }
};

} // namespace host

inline void __syncthreads() { host::wait(host::Wait::Block); }
inline void __syncwarp(unsigned = 0xffffffffu) { host::wait(host::Wait::Warp); }
template <typename T>
T __shfl_sync(unsigned, T value, int lane)
{
    return host::shuffle(value, (unsigned)lane % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask)
{
    return host::shuffle(value, (host::thread_number() % 32) ^ (unsigned)mask);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int step)
{
    return host::shuffle(value, host::thread_number() % 32 + (unsigned)step);
}

inline float __uint_as_float(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
template <typename T>
inline T __ldg(const T *at)
{
    return *at;
}
