// The part of the CUDA driver's interface that the workspace calls, on the processor: device memory is memory between guard bytes,
// filled with NaN when it is allocated; streams and events do nothing, since every call is done when it returns.
//
// What a GPU would refuse is refused here too: empty grids, blocks of more than 1024 threads, copies outside of an allocation. What a
// GPU might let pass is an error as well: a write past either end of an allocation, threads that wait at different barriers.

#include "device.hpp"

#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {

struct Kernel {
    std::string name;
    Invoke invoke;
    bool waits;
};

static std::map<std::string, Kernel> &kernels()
{
    static std::map<std::string, Kernel> all;
    return all;
}

Register::Register(const char *name, Invoke invoke, bool waits)
{
    if (!kernels().emplace(name, Kernel{name, invoke, waits}).second) {
        std::fprintf(stderr, "host driver: two kernels are named `%s`\n", name);
        std::abort();
    }
}

enum class State { Ready, AtBlock, AtWarp, Done };

struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    State state;
    dim3 index;
    unsigned char slot[8];
};

static const std::size_t STACK_BYTES = 128 * 1024;
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current, n_fibers;
static const Kernel *running;
static void **running_arguments;
// Threads are run from the last to the first: a result that depends on the order lacks a barrier.
static bool reversed = false;

void wait(Wait where)
{
    if (!running->waits) {
        std::fprintf(stderr, "host driver: `%s` waits, but its file was read as one that does not\n", running->name.c_str());
        std::abort();
    }
    fibers[current].state = where == Wait::Block ? State::AtBlock : State::AtWarp;
    swapcontext(&fibers[current].context, &scheduler);
}

void *slot(unsigned thread) { return fibers[thread].slot; }
unsigned thread_number() { return current; }
unsigned n_threads() { return n_fibers; }

static void fiber_main()
{
    running->invoke(running_arguments);
    fibers[current].state = State::Done;
    // Never resumed; uc_link would return here too, but the state says so.
    swapcontext(&fibers[current].context, &scheduler);
}

static dim3 index_of(unsigned thread)
{
    return {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

// Lets go on whoever may: warps that have all arrived, else the block. False if nobody may.
static bool release()
{
    bool any = false;
    for (unsigned first = 0; first < n_fibers; first += 32) {
        unsigned end = first + 32 < n_fibers ? first + 32 : n_fibers;
        bool all = true, some = false;
        for (unsigned t = first; t < end; t++) {
            all = all && (fibers[t].state == State::AtWarp || fibers[t].state == State::Done);
            some = some || fibers[t].state == State::AtWarp;
        }
        for (unsigned t = first; all && some && t < end; t++) {
            if (fibers[t].state == State::AtWarp) {
                fibers[t].state = State::Ready;
                any = true;
            }
        }
    }
    if (any) {
        return true;
    }
    for (unsigned t = 0; t < n_fibers; t++) {
        if (fibers[t].state == State::AtWarp) {
            return false;
        }
    }
    for (unsigned t = 0; t < n_fibers; t++) {
        if (fibers[t].state == State::AtBlock) {
            fibers[t].state = State::Ready;
            any = true;
        }
    }
    return any;
}

static bool run_block()
{
    for (unsigned t = 0; t < n_fibers; t++) {
        Fiber &fiber = fibers[t];
        fiber.stack.resize(STACK_BYTES);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = nullptr;
        fiber.state = State::Ready;
        fiber.index = index_of(t);
        makecontext(&fiber.context, fiber_main, 0);
    }
    for (;;) {
        bool ran = false, all_done = true;
        for (unsigned i = 0; i < n_fibers; i++) {
            unsigned t = reversed ? n_fibers - 1 - i : i;
            if (fibers[t].state == State::Ready) {
                current = t;
                threadIdx = fibers[t].index;
                swapcontext(&scheduler, &fibers[t].context);
                ran = true;
            }
            all_done = all_done && fibers[t].state == State::Done;
        }
        if (all_done) {
            return true;
        }
        if (!ran && !release()) {
            return false;
        }
    }
}

static bool run(const Kernel &kernel, dim3 grid, dim3 block, void **arguments)
{
    gridDim = grid;
    blockDim = block;
    running = &kernel;
    running_arguments = arguments;
    n_fibers = block.x * block.y * block.z;
    if (fibers.size() < n_fibers) {
        fibers.resize(n_fibers);
    }
    std::uint64_t n_blocks = (std::uint64_t)grid.x * grid.y * grid.z;
    for (std::uint64_t i = 0; i < n_blocks; i++) {
        std::uint64_t b = reversed ? n_blocks - 1 - i : i;
        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / ((std::uint64_t)grid.x * grid.y))};
        if (kernel.waits) {
            if (!run_block()) {
                return false;
            }
            continue;
        }
        for (unsigned t = 0; t < n_fibers; t++) {
            current = reversed ? n_fibers - 1 - t : t;
            threadIdx = index_of(current);
            kernel.invoke(arguments);
        }
    }
    return true;
}

// Allocations by address of their first byte.
static const std::size_t GUARD = 256;
static const unsigned char GUARD_BYTE = 0xa5, FRESH_BYTE = 0xff;

static std::map<std::uintptr_t, std::size_t> &allocations()
{
    static std::map<std::uintptr_t, std::size_t> all;
    return all;
}

static std::recursive_mutex &lock()
{
    static std::recursive_mutex mutex;
    return mutex;
}

static bool intact(std::uintptr_t start, std::size_t len)
{
    const unsigned char *bytes = reinterpret_cast<const unsigned char *>(start);
    for (std::size_t i = 1; i <= GUARD; i++) {
        if (bytes[-(std::ptrdiff_t)i] != GUARD_BYTE || bytes[len + i - 1] != GUARD_BYTE) {
            return false;
        }
    }
    return true;
}

// Whether [at, at + len) lies inside one allocation.
static bool inside(std::uintptr_t at, std::size_t len)
{
    auto next = allocations().upper_bound(at);
    if (next == allocations().begin()) {
        return false;
    }
    --next;
    return at + len <= next->first + next->second;
}

} // namespace host

using namespace host;
using Result = int;
static const Result SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700,
                    LAUNCH_FAILED = 719, NOT_SUPPORTED = 801;
using Pointer = unsigned long long;
#define EXPORT extern "C" __attribute__((visibility("default"))) Result
#define GUARDED std::lock_guard<std::recursive_mutex> guard(lock())

// With HOST_DRIVER_FAULT=N the launch after N others fails, and from then on every launch and every wait does, as after a fault of a GPU.
static bool faulty = false;

// Two devices, so that work over several can be tried.
static const int N_DEVICES = 2;
static int contexts[N_DEVICES];
static thread_local void *current_context = nullptr;

EXPORT cuInit(unsigned)
{
    const char *order = std::getenv("HOST_DRIVER_ORDER");
    reversed = order && std::string(order) == "reversed";
    return SUCCESS;
}
extern "C" __attribute__((visibility("default"))) void host_driver_set_reversed(int value) { reversed = value != 0; }
EXPORT cuDriverGetVersion(int *version)
{
    // Another one for tests of what is said of old drivers.
    const char *said = std::getenv("HOST_DRIVER_VERSION");
    *version = said ? std::atoi(said) : 13000;
    return SUCCESS;
}
EXPORT cuDeviceGetCount(int *count)
{
    *count = N_DEVICES;
    return SUCCESS;
}
EXPORT cuDeviceGet(int *device, int ordinal)
{
    if (ordinal < 0 || ordinal >= N_DEVICES) {
        return NO_DEVICE + 1;
    }
    *device = ordinal;
    return SUCCESS;
}
EXPORT cuDeviceGetName(char *name, int len, int)
{
    std::snprintf(name, (std::size_t)len, "host driver");
    return SUCCESS;
}
EXPORT cuDeviceGetUuid_v2(void *uuid, int device)
{
    std::memset(uuid, device, 16);
    return SUCCESS;
}
EXPORT cuDeviceTotalMem_v2(std::size_t *bytes, int)
{
    *bytes = (std::size_t)1 << 32;
    return SUCCESS;
}
EXPORT cuMemGetInfo_v2(std::size_t *free, std::size_t *total)
{
    *free = *total = (std::size_t)1 << 32;
    return SUCCESS;
}
EXPORT cuDeviceGetAttribute(int *value, int attribute, int)
{
    switch (attribute) {
    case 1: // threads per block
        *value = 1024;
        break;
    case 10: // warp size
        *value = 32;
        break;
    case 16: // multiprocessors
        *value = 4;
        break;
    case 75: // compute capability 8.0
        *value = 8;
        break;
    case 115: // memory pools
        *value = 1;
        break;
    default:
        *value = 0;
    }
    return SUCCESS;
}
EXPORT cuDevicePrimaryCtxRetain(void **context, int device)
{
    *context = &contexts[device];
    return SUCCESS;
}
EXPORT cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
EXPORT cuDevicePrimaryCtxSetFlags_v2(int, unsigned) { return SUCCESS; }
EXPORT cuCtxGetCurrent(void **context)
{
    *context = current_context;
    return SUCCESS;
}
EXPORT cuCtxSetCurrent(void *context)
{
    current_context = context;
    return SUCCESS;
}
EXPORT cuCtxGetDevice(int *device)
{
    *device = current_context ? (int)(static_cast<int *>(current_context) - contexts) : 0;
    return SUCCESS;
}
EXPORT cuCtxSetFlags(unsigned) { return SUCCESS; }
EXPORT cuCtxSynchronize() { return SUCCESS; }
EXPORT cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    *least = *greatest = 0;
    return SUCCESS;
}

EXPORT cuDeviceGetDefaultMemPool(void **pool, int device)
{
    *pool = &contexts[device];
    return SUCCESS;
}
EXPORT cuDeviceGetMemPool(void **pool, int device) { return cuDeviceGetDefaultMemPool(pool, device); }
EXPORT cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }
EXPORT cuMemPoolGetAttribute(void *, int, void *value)
{
    std::memset(value, 0, 8);
    return SUCCESS;
}
EXPORT cuMemPoolTrimTo(void *, std::size_t) { return SUCCESS; }

EXPORT cuMemAlloc_v2(Pointer *pointer, std::size_t len)
{
    GUARDED;
    if (len == 0) {
        return INVALID_VALUE;
    }
    std::size_t whole = (len + 2 * GUARD + 255) / 256 * 256;
    unsigned char *memory = static_cast<unsigned char *>(std::aligned_alloc(256, whole));
    if (!memory) {
        return OUT_OF_MEMORY;
    }
    std::memset(memory, GUARD_BYTE, whole);
    std::memset(memory + GUARD, FRESH_BYTE, len);
    *pointer = (Pointer)(memory + GUARD);
    allocations()[(std::uintptr_t)*pointer] = len;
    return SUCCESS;
}
EXPORT cuMemAllocAsync(Pointer *pointer, std::size_t len, void *) { return cuMemAlloc_v2(pointer, len); }
EXPORT cuMemAllocFromPoolAsync(Pointer *pointer, std::size_t len, void *, void *) { return cuMemAlloc_v2(pointer, len); }
EXPORT cuMemFree_v2(Pointer pointer)
{
    GUARDED;
    if (!pointer) {
        return SUCCESS;
    }
    auto found = allocations().find((std::uintptr_t)pointer);
    if (found == allocations().end()) {
        return INVALID_VALUE;
    }
    bool whole = intact(found->first, found->second);
    std::free(reinterpret_cast<void *>((std::uintptr_t)pointer - GUARD));
    allocations().erase(found);
    return whole ? SUCCESS : ILLEGAL_ADDRESS;
}
EXPORT cuMemFreeAsync(Pointer pointer, void *) { return cuMemFree_v2(pointer); }
EXPORT cuMemHostAlloc(void **pointer, std::size_t len, unsigned)
{
    *pointer = std::malloc(len);
    return *pointer ? SUCCESS : OUT_OF_MEMORY;
}
EXPORT cuMemFreeHost(void *pointer)
{
    std::free(pointer);
    return SUCCESS;
}

EXPORT cuMemcpyHtoD_v2(Pointer into, const void *from, std::size_t len)
{
    GUARDED;
    if (!inside((std::uintptr_t)into, len)) {
        return INVALID_VALUE;
    }
    std::memcpy(reinterpret_cast<void *>((std::uintptr_t)into), from, len);
    return SUCCESS;
}
EXPORT cuMemcpyHtoDAsync_v2(Pointer into, const void *from, std::size_t len, void *) { return cuMemcpyHtoD_v2(into, from, len); }
EXPORT cuMemcpyDtoH_v2(void *into, Pointer from, std::size_t len)
{
    GUARDED;
    if (!inside((std::uintptr_t)from, len)) {
        return INVALID_VALUE;
    }
    std::memcpy(into, reinterpret_cast<void *>((std::uintptr_t)from), len);
    return SUCCESS;
}
EXPORT cuMemcpyDtoHAsync_v2(void *into, Pointer from, std::size_t len, void *) { return cuMemcpyDtoH_v2(into, from, len); }
EXPORT cuMemcpyDtoD_v2(Pointer into, Pointer from, std::size_t len)
{
    GUARDED;
    if (!inside((std::uintptr_t)from, len) || !inside((std::uintptr_t)into, len)) {
        return INVALID_VALUE;
    }
    std::memmove(reinterpret_cast<void *>((std::uintptr_t)into), reinterpret_cast<void *>((std::uintptr_t)from), len);
    return SUCCESS;
}
EXPORT cuMemcpyDtoDAsync_v2(Pointer into, Pointer from, std::size_t len, void *) { return cuMemcpyDtoD_v2(into, from, len); }
EXPORT cuMemcpyPeerAsync(Pointer into, void *, Pointer from, void *, std::size_t len, void *) { return cuMemcpyDtoD_v2(into, from, len); }
EXPORT cuMemsetD8_v2(Pointer into, unsigned char value, std::size_t len)
{
    GUARDED;
    if (!inside((std::uintptr_t)into, len)) {
        return INVALID_VALUE;
    }
    std::memset(reinterpret_cast<void *>((std::uintptr_t)into), value, len);
    return SUCCESS;
}
EXPORT cuMemsetD8Async(Pointer into, unsigned char value, std::size_t len, void *) { return cuMemsetD8_v2(into, value, len); }

static int something;
EXPORT cuStreamCreate(void **stream, unsigned)
{
    *stream = &something;
    return SUCCESS;
}
EXPORT cuStreamCreateWithPriority(void **stream, unsigned, int) { return cuStreamCreate(stream, 0); }
EXPORT cuStreamDestroy_v2(void *) { return SUCCESS; }
EXPORT cuStreamSynchronize(void *) { return faulty ? ILLEGAL_ADDRESS : SUCCESS; }
EXPORT cuStreamQuery(void *) { return SUCCESS; }
EXPORT cuStreamWaitEvent(void *, void *, unsigned) { return SUCCESS; }
EXPORT cuStreamIsCapturing(void *, int *status)
{
    *status = 0;
    return SUCCESS;
}
EXPORT cuStreamBeginCapture_v2(void *, int) { return NOT_SUPPORTED; }
EXPORT cuLaunchHostFunc(void *, void (*function)(void *), void *data)
{
    function(data);
    return SUCCESS;
}
EXPORT cuEventCreate(void **event, unsigned)
{
    *event = &something;
    return SUCCESS;
}
EXPORT cuEventDestroy_v2(void *) { return SUCCESS; }
EXPORT cuEventRecord(void *, void *) { return SUCCESS; }
EXPORT cuEventQuery(void *) { return SUCCESS; }
EXPORT cuEventSynchronize(void *) { return SUCCESS; }
EXPORT cuEventElapsedTime_v2(float *milliseconds, void *, void *)
{
    *milliseconds = 0.0f;
    return SUCCESS;
}

// Modules hold nothing: kernels are known by name, whichever module they are asked of.
EXPORT cuModuleLoadData(void **module, const void *)
{
    *module = &something;
    return SUCCESS;
}
EXPORT cuModuleLoadDataEx(void **module, const void *image, unsigned, void *, void *) { return cuModuleLoadData(module, image); }
EXPORT cuModuleUnload(void *) { return SUCCESS; }
EXPORT cuModuleGetFunction(void **function, void *, const char *name)
{
    auto found = kernels().find(name);
    if (found == kernels().end()) {
        std::fprintf(stderr, "host driver: there is no kernel `%s`\n", name);
        return NOT_FOUND;
    }
    *function = &found->second;
    return SUCCESS;
}
EXPORT cuFuncSetAttribute(void *, int, int) { return SUCCESS; }
EXPORT cuFuncGetAttribute(int *value, int, void *)
{
    *value = 0;
    return SUCCESS;
}
EXPORT cuLaunchKernel(
    void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned, void *, void **arguments, void **)
{
    GUARDED;
    static const char *fault = std::getenv("HOST_DRIVER_FAULT");
    static long launches = 0;
    faulty = faulty || (fault && ++launches > std::atol(fault));
    if (faulty) {
        return ILLEGAL_ADDRESS;
    }
    const Kernel &kernel = *static_cast<const Kernel *>(function);
    std::uint64_t threads = (std::uint64_t)bx * by * bz;
    if (!gx || !gy || !gz || !threads || threads > 1024 || gx > 0x7fffffffu || gy > 65535 || gz > 65535) {
        std::fprintf(stderr, "host driver: `%s` was launched as %ux%ux%u blocks of %ux%ux%u\n", kernel.name.c_str(), gx, gy, gz, bx, by, bz);
        return INVALID_VALUE;
    }
    if (!run(kernel, {gx, gy, gz}, {bx, by, bz}, arguments)) {
        std::fprintf(stderr, "host driver: threads of `%s` wait at different barriers\n", kernel.name.c_str());
        return LAUNCH_FAILED;
    }
    for (auto &allocation : allocations()) {
        if (!intact(allocation.first, allocation.second)) {
            std::fprintf(stderr, "host driver: `%s` wrote outside of an allocation of %zu bytes\n", kernel.name.c_str(), allocation.second);
            return ILLEGAL_ADDRESS;
        }
    }
    return SUCCESS;
}

EXPORT cuGetErrorName(Result, const char **name)
{
    *name = "HOST_DRIVER_ERROR";
    return SUCCESS;
}
EXPORT cuGetErrorString(Result result, const char **text)
{
    switch (result) {
    case INVALID_VALUE:
        *text = "invalid value";
        break;
    case ILLEGAL_ADDRESS:
        *text = "a write outside of an allocation";
        break;
    case LAUNCH_FAILED:
        *text = "threads wait at different barriers";
        break;
    case NOT_FOUND:
        *text = "no kernel of this name";
        break;
    default:
        *text = "an error of the host driver";
    }
    return SUCCESS;
}
