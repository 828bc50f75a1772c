// Pooling of channels-last images, as pool/: one thread per element of the result, channels innermost.
//
// The ways back gather: an input pixel looks up the windows that hold it, in the order in which the CPU adds them. No atomics.

typedef long long index_t;

#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// The windows of all output pixels; [0] is rows, [1] is columns. stride 0 marks adaptive windows: i*in/out up to (i + 1)*in/out.
struct PoolWindows {
    index_t n, channels;
    index_t in[2], out[2], kernel[2], stride[2], padding[2];
    // What a window's sum is divided by; 0: its pixels inside the image.
    double divisor;
};

struct Range {
    index_t start, end;
};

// The rows or columns of the input that output i looks at.
__device__ __forceinline__ Range window(const PoolWindows &w, int axis, index_t i)
{
    Range range;
    if (w.stride[axis] == 0) {
        range.start = i * w.in[axis] / w.out[axis];
        range.end = ((i + 1) * w.in[axis] + w.out[axis] - 1) / w.out[axis];
    } else {
        index_t start = i * w.stride[axis] - w.padding[axis], end = start + w.kernel[axis];
        range.start = start < 0 ? 0 : start;
        range.end = end > w.in[axis] ? w.in[axis] : end;
    }
    return range;
}

// The outputs whose windows hold row or column i of the input.
__device__ __forceinline__ Range holders(const PoolWindows &w, int axis, index_t i)
{
    Range range;
    if (w.stride[axis] == 0) {
        range.start = i * w.out[axis] / w.in[axis];
        range.end = ((i + 1) * w.out[axis] + w.in[axis] - 1) / w.in[axis];
    } else {
        // start*stride <= i + padding < start*stride + kernel
        index_t at = i + w.padding[axis];
        range.start = at < w.kernel[axis] ? 0 : (at - w.kernel[axis]) / w.stride[axis] + 1;
        range.end = at / w.stride[axis] + 1;
        if (range.end > w.out[axis]) {
            range.end = w.out[axis];
        }
    }
    return range;
}

__device__ __forceinline__ double divisor_of(const PoolWindows &w, Range rows, Range columns)
{
    return w.divisor != 0.0 ? w.divisor : (double)((rows.end - rows.start) * (columns.end - columns.start));
}

// The maximum and its place row*width + column: the first of equals, of NaNs the last.
template <typename T>
__device__ __forceinline__ void max_forward(const PoolWindows &w, const T *x, T *y, unsigned *argmax)
{
    FOR_EACH(at, w.n * w.out[0] * w.out[1] * w.channels) {
        index_t c = at % w.channels, pixel = at / w.channels;
        Range columns = window(w, 1, pixel % w.out[1]);
        Range rows = window(w, 0, pixel / w.out[1] % w.out[0]);
        const T *image = x + pixel / (w.out[0] * w.out[1]) * w.in[0] * w.in[1] * w.channels + c;
        index_t place = rows.start * w.in[1] + columns.start;
        T best = image[place * w.channels];
        for (index_t row = rows.start; row < rows.end; row++) {
            for (index_t column = columns.start; column < columns.end; column++) {
                T value = image[(row * w.in[1] + column) * w.channels];
                if (value > best || value != value) {
                    best = value;
                    place = row * w.in[1] + column;
                }
            }
        }
        y[at] = best;
        argmax[at] = (unsigned)place;
    }
}

template <typename T>
__device__ __forceinline__ void max_backward(const PoolWindows &w, const unsigned *argmax, const T *dy, T *dx, int add)
{
    FOR_EACH(at, w.n * w.in[0] * w.in[1] * w.channels) {
        index_t c = at % w.channels, pixel = at / w.channels;
        index_t column = pixel % w.in[1], row = pixel / w.in[1] % w.in[0];
        Range columns = holders(w, 1, column), rows = holders(w, 0, row);
        index_t image = pixel / (w.in[0] * w.in[1]) * w.out[0] * w.out[1] * w.channels + c;
        unsigned place = (unsigned)(row * w.in[1] + column);
        T sum = add ? dx[at] : (T)0;
        for (index_t i = rows.start; i < rows.end; i++) {
            for (index_t j = columns.start; j < columns.end; j++) {
                index_t from = image + (i * w.out[1] + j) * w.channels;
                if (argmax[from] == place) {
                    sum += dy[from];
                }
            }
        }
        dx[at] = sum;
    }
}

template <typename T>
__device__ __forceinline__ void mean_forward(const PoolWindows &w, const T *x, T *y)
{
    FOR_EACH(at, w.n * w.out[0] * w.out[1] * w.channels) {
        index_t c = at % w.channels, pixel = at / w.channels;
        Range columns = window(w, 1, pixel % w.out[1]);
        Range rows = window(w, 0, pixel / w.out[1] % w.out[0]);
        const T *image = x + pixel / (w.out[0] * w.out[1]) * w.in[0] * w.in[1] * w.channels + c;
        double sum = 0.0;
        for (index_t row = rows.start; row < rows.end; row++) {
            for (index_t column = columns.start; column < columns.end; column++) {
                sum += (double)image[(row * w.in[1] + column) * w.channels];
            }
        }
        y[at] = (T)(sum / divisor_of(w, rows, columns));
    }
}

template <typename T>
__device__ __forceinline__ void mean_backward(const PoolWindows &w, const T *dy, T *dx, int add)
{
    FOR_EACH(at, w.n * w.in[0] * w.in[1] * w.channels) {
        index_t c = at % w.channels, pixel = at / w.channels;
        Range columns = holders(w, 1, pixel % w.in[1]), rows = holders(w, 0, pixel / w.in[1] % w.in[0]);
        index_t image = pixel / (w.in[0] * w.in[1]) * w.out[0] * w.out[1] * w.channels + c;
        T sum = add ? dx[at] : (T)0;
        for (index_t i = rows.start; i < rows.end; i++) {
            for (index_t j = columns.start; j < columns.end; j++) {
                T divisor = (T)divisor_of(w, window(w, 0, i), window(w, 1, j));
                sum += dy[image + (i * w.out[1] + j) * w.channels] / divisor;
            }
        }
        dx[at] = sum;
    }
}

// Means over the middle axis of [outer, len, inner]: a block of 32 x 8 threads for 32 means, eight interleaved sums each, then a tree.
template <typename T>
__device__ __forceinline__ void axis_mean_forward(
    index_t n_means, index_t len, index_t inner, const T *x, T *y, double (*sums)[32])
{
    for (index_t first = (index_t)blockIdx.x * 32; first < n_means; first += (index_t)gridDim.x * 32) {
        index_t mean = first + threadIdx.x;
        double sum = 0.0;
        if (mean < n_means) {
            const T *from = x + mean / inner * len * inner + mean % inner;
            for (index_t k = threadIdx.y; k < len; k += 8) {
                sum += (double)from[k * inner];
            }
        }
        sums[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        for (int half = 4; half > 0; half /= 2) {
            if ((int)threadIdx.y < half) {
                sums[threadIdx.y][threadIdx.x] += sums[threadIdx.y + half][threadIdx.x];
            }
            __syncthreads();
        }
        if (mean < n_means && threadIdx.y == 0) {
            y[mean] = (T)(sums[0][threadIdx.x] / (double)len);
        }
        __syncthreads();
    }
}

template <typename T>
__device__ __forceinline__ void axis_mean_backward(index_t n, index_t len, index_t inner, const T *dy, T *dx, int add)
{
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (index_t)gridDim.x * blockDim.x) {
        T value = (T)((double)dy[i / (len * inner) * inner + i % inner] / (double)len);
        dx[i] = add ? dx[i] + value : value;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void max_pool_forward_##name(PoolWindows w, const T *x, T *y, unsigned *argmax)                \
    {                                                                                                                    \
        max_forward(w, x, y, argmax);                                                                                    \
    }                                                                                                                    \
    extern "C" __global__ void max_pool_backward_##name(PoolWindows w, const unsigned *argmax, const T *dy, T *dx, int add) \
    {                                                                                                                    \
        max_backward(w, argmax, dy, dx, add);                                                                            \
    }                                                                                                                    \
    extern "C" __global__ void mean_pool_forward_##name(PoolWindows w, const T *x, T *y) { mean_forward(w, x, y); }      \
    extern "C" __global__ void mean_pool_backward_##name(PoolWindows w, const T *dy, T *dx, int add)                     \
    {                                                                                                                    \
        mean_backward(w, dy, dx, add);                                                                                   \
    } \
    extern "C" __global__ void axis_mean_forward_##name(index_t n_means, index_t len, index_t inner, const T *x, T *y)  \
    {                                                                                                                   \
        __shared__ double sums[8][32];                                                                                  \
        axis_mean_forward(n_means, len, inner, x, y, sums);                                                             \
    }                                                                                                                   \
    extern "C" __global__ void axis_mean_backward_##name(                                                               \
        index_t n, index_t len, index_t inner, const T *dy, T *dx, int add)                                             \
    {                                                                                                                   \
        axis_mean_backward(n, len, inner, dy, dx, add);                                                                 \
    }

KERNELS(float, f32)
KERNELS(double, f64)
