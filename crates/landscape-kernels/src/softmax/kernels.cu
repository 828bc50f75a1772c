// Softmax as softmax.rs: one warp per row, exponentials and sums in double precision. Blocks are 32 x 8 threads.

typedef long long index_t;

#define WARP 32
#define ALL 0xffffffffu

// The sum over a warp, by a fixed tree; every lane gets it.
__device__ __forceinline__ double sum_of_warp(double value)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(ALL, value, step);
    }
    return value;
}

__device__ __forceinline__ double largest_of_warp(double value)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        double other = __shfl_xor_sync(ALL, value, step);
        value = other > value ? other : value;
    }
    return value;
}

template <typename T>
__device__ __forceinline__ void softmax_forward(index_t n_rows, index_t len, const T *x, T *y)
{
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        index_t first = row * len;
        // NaN is passed by here, and spreads by the sum.
        double top = -1.0 / 0.0;
        for (index_t j = threadIdx.x; j < len; j += WARP) {
            double value = (double)x[first + j];
            top = value > top ? value : top;
        }
        top = largest_of_warp(top);
        double sum = 0.0;
        for (index_t j = threadIdx.x; j < len; j += WARP) {
            sum += exp((double)x[first + j] - top);
        }
        sum = sum_of_warp(sum);
        for (index_t j = threadIdx.x; j < len; j += WARP) {
            y[first + j] = (T)(exp((double)x[first + j] - top) / sum);
        }
    }
}

// dx = y*(dy - sum dy*y).
template <typename T>
__device__ __forceinline__ void softmax_backward(index_t n_rows, index_t len, const T *y, const T *dy, T *dx, int add)
{
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        index_t first = row * len;
        double dot = 0.0;
        for (index_t j = threadIdx.x; j < len; j += WARP) {
            dot += (double)y[first + j] * (double)dy[first + j];
        }
        dot = sum_of_warp(dot);
        for (index_t j = threadIdx.x; j < len; j += WARP) {
            T value = (T)((double)y[first + j] * ((double)dy[first + j] - dot));
            dx[first + j] = add ? dx[first + j] + value : value;
        }
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void softmax_forward_##name(index_t n_rows, index_t len, const T *x, T *y)                     \
    {                                                                                                                    \
        softmax_forward(n_rows, len, x, y);                                                                              \
    }                                                                                                                    \
    extern "C" __global__ void softmax_backward_##name(                                                                  \
        index_t n_rows, index_t len, const T *y, const T *dy, T *dx, int add)                                            \
    {                                                                                                                    \
        softmax_backward(n_rows, len, y, dy, dx, add);                                                                   \
    }

KERNELS(float, f32)
KERNELS(double, f64)
