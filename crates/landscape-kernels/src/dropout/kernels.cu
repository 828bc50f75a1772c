// Dropout by the same counter-based mask as dropout.rs: the bits of the CPU.

typedef long long index_t;
typedef unsigned long long word_t;

#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// SplitMix64's increment: 2^64 divided by the golden ratio.
#define INCREMENT 0x9e3779b97f4a7c15ULL

// SplitMix64's finaliser.
__device__ __forceinline__ word_t mix(word_t state)
{
    word_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

// Element i is kept iff the top 53 bits of output number first_idx + i + 1 reach the threshold.
template <typename T>
__device__ __forceinline__ void dropout(
    index_t n, word_t state, word_t first_idx, word_t threshold, double scale, const T *x, T *y, int add)
{
    FOR_EACH(i, n) {
        word_t counter = state + (first_idx + (word_t)i + 1) * INCREMENT;
        T kept = (mix(counter) >> 11) >= threshold ? (T)scale * x[i] : (T)0;
        y[i] = add ? y[i] + kept : kept;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void dropout_##name(                                                                           \
        index_t n, word_t state, word_t first_idx, word_t threshold, double scale, const T *x, T *y, int add)            \
    {                                                                                                                    \
        dropout(n, state, first_idx, threshold, scale, x, y, add);                                                       \
    }

KERNELS(float, f32)
KERNELS(double, f64)
