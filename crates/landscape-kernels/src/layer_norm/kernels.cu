// Norms of groups of channels of [n, pixels, channels], as group_norm.rs; a layer norm or an RMS norm has one pixel and one group.
//
// Sums run in double precision in fixed trees: one block (a power of two of threads, at most 256) per group of an example; sums over
// examples and pixels go over fixed parts of the rows, as those of batch norm. No atomics.

typedef long long index_t;

#define BLOCK 256
#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// The sum over a block; every thread gets it.
__device__ __forceinline__ double sum_of_block(double value, double *shared)
{
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) {
            shared[threadIdx.x] += shared[threadIdx.x + half];
        }
        __syncthreads();
    }
    value = shared[0];
    // The memory is used again by the next sum.
    __syncthreads();
    return value;
}

// Where value k of group `group` (of all examples') stands.
__device__ __forceinline__ index_t place(index_t group, index_t k, index_t pixels, index_t channels, index_t groups)
{
    index_t width = channels / groups;
    return (group / groups * pixels + k / width) * channels + group % groups * width + k % width;
}

// stats: [n_groups][2], what is subtracted and one over the length. about_mean: 0 subtracts nothing.
template <typename T>
__device__ __forceinline__ void statistics(
    index_t n_groups, index_t pixels, index_t channels, index_t groups, int about_mean, double eps, const T *x, double *stats, double *shared)
{
    index_t len = pixels * (channels / groups);
    for (index_t group = blockIdx.x; group < n_groups; group += gridDim.x) {
        double mean = 0.0;
        if (about_mean) {
            for (index_t k = threadIdx.x; k < len; k += blockDim.x) {
                mean += (double)x[place(group, k, pixels, channels, groups)];
            }
            mean = sum_of_block(mean, shared) / (double)len;
        }
        double square = 0.0;
        for (index_t k = threadIdx.x; k < len; k += blockDim.x) {
            double d = (double)x[place(group, k, pixels, channels, groups)] - mean;
            square += d * d;
        }
        square = sum_of_block(square, shared);
        if (threadIdx.x == 0) {
            stats[2 * group] = mean;
            stats[2 * group + 1] = 1.0 / sqrt(square / (double)len + eps);
        }
    }
}

// The group of all examples' that element i is in.
__device__ __forceinline__ index_t group_of(index_t i, index_t pixels, index_t channels, index_t groups)
{
    return i / (pixels * channels) * groups + i % channels / (channels / groups);
}

// weight and bias may be null.
template <typename T>
__device__ __forceinline__ void normalize(
    index_t n, index_t pixels, index_t channels, index_t groups, const double *stats, const T *x, const T *weight, const T *bias, T *y)
{
    FOR_EACH(i, n) {
        index_t group = group_of(i, pixels, channels, groups), c = i % channels;
        double value = ((double)x[i] - stats[2 * group]) * stats[2 * group + 1];
        value *= weight ? (double)weight[c] : 1.0;
        y[i] = (T)(value + (bias ? (double)bias[c] : 0.0));
    }
}

// dx = scale*(g - mean(g) - x_hat*mean(g*x_hat)) with g = dy*weight; without mean(g) if nothing was subtracted.
template <typename T>
__device__ __forceinline__ void gradient(
    index_t n_groups, index_t pixels, index_t channels, index_t groups, int about_mean, const double *stats, const T *x,
    const T *weight, const T *dy, T *dx, int add, double *shared)
{
    index_t width = channels / groups, len = pixels * width;
    for (index_t group = blockIdx.x; group < n_groups; group += gridDim.x) {
        double mean = stats[2 * group], scale = stats[2 * group + 1];
        double sum = 0.0, product = 0.0;
        for (index_t k = threadIdx.x; k < len; k += blockDim.x) {
            index_t at = place(group, k, pixels, channels, groups);
            double g = (double)dy[at] * (weight ? (double)weight[at % channels] : 1.0);
            sum += g;
            product += g * ((double)x[at] - mean);
        }
        sum = sum_of_block(sum, shared);
        product = sum_of_block(product, shared);
        double shift = about_mean ? sum / (double)len : 0.0;
        double along = product * scale * scale / (double)len;
        for (index_t k = threadIdx.x; k < len; k += blockDim.x) {
            index_t at = place(group, k, pixels, channels, groups);
            double g = (double)dy[at] * (weight ? (double)weight[at % channels] : 1.0);
            T value = (T)(scale * (g - shift - ((double)x[at] - mean) * along));
            dx[at] = add ? dx[at] + value : value;
        }
    }
}

// Sums of dy*x_hat and of dy over the rows (examples and pixels) of part blockIdx.y; partials: [part][2][channels].
// Blocks are blockDim.x channels by blockDim.y rows, 256 threads.
template <typename T>
__device__ __forceinline__ void parameter_sums(
    index_t n_rows, index_t pixels, index_t channels, index_t groups, index_t rows_per_part, const double *stats, const T *x,
    const T *dy, double *partials, double *shared)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    double sums[2] = {0.0, 0.0};
    if (c < channels) {
        for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
            index_t at = row * channels + c, group = row / pixels * groups + c / (channels / groups);
            double g = (double)dy[at];
            sums[0] += g * (((double)x[at] - stats[2 * group]) * stats[2 * group + 1]);
            sums[1] += g;
        }
    }
    int at = threadIdx.y * blockDim.x + threadIdx.x;
    for (int which = 0; which < 2; which++) {
        shared[at] = sums[which];
        __syncthreads();
        for (int half = blockDim.y / 2; half > 0; half /= 2) {
            if ((int)threadIdx.y < half) {
                shared[at] += shared[at + half * blockDim.x];
            }
            __syncthreads();
        }
        if (c < channels && threadIdx.y == 0) {
            partials[(2 * (index_t)blockIdx.y + which) * channels + c] = shared[at];
        }
        __syncthreads();
    }
}

// The parts added up in order; dweight or dbias may be null.
template <typename T>
__device__ __forceinline__ void finish_parameters(
    index_t channels, index_t n_parts, const double *partials, T *dweight, T *dbias, int add)
{
    FOR_EACH(c, channels) {
        double weight = 0.0, bias = 0.0;
        for (index_t part = 0; part < n_parts; part++) {
            weight += partials[2 * part * channels + c];
            bias += partials[(2 * part + 1) * channels + c];
        }
        if (dweight) {
            dweight[c] = add ? dweight[c] + (T)weight : (T)weight;
        }
        if (dbias) {
            dbias[c] = add ? dbias[c] + (T)bias : (T)bias;
        }
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void norm_statistics_##name(                                                                   \
        index_t n_groups, index_t pixels, index_t channels, index_t groups, int about_mean, double eps, const T *x,      \
        double *stats)                                                                                                   \
    {                                                                                                                    \
        __shared__ double shared[BLOCK];                                                                                 \
        statistics(n_groups, pixels, channels, groups, about_mean, eps, x, stats, shared);                               \
    }                                                                                                                    \
    extern "C" __global__ void norm_normalize_##name(                                                                    \
        index_t n, index_t pixels, index_t channels, index_t groups, const double *stats, const T *x, const T *weight,   \
        const T *bias, T *y)                                                                                             \
    {                                                                                                                    \
        normalize(n, pixels, channels, groups, stats, x, weight, bias, y);                                               \
    }                                                                                                                    \
    extern "C" __global__ void norm_gradient_##name(                                                                     \
        index_t n_groups, index_t pixels, index_t channels, index_t groups, int about_mean, const double *stats,         \
        const T *x, const T *weight, const T *dy, T *dx, int add)                                                        \
    {                                                                                                                    \
        __shared__ double shared[BLOCK];                                                                                 \
        gradient(n_groups, pixels, channels, groups, about_mean, stats, x, weight, dy, dx, add, shared);                 \
    }                                                                                                                    \
    extern "C" __global__ void norm_parameter_sums_##name(                                                               \
        index_t n_rows, index_t pixels, index_t channels, index_t groups, index_t rows_per_part, const double *stats,    \
        const T *x, const T *dy, double *partials)                                                                       \
    {                                                                                                                    \
        __shared__ double shared[BLOCK];                                                                                 \
        parameter_sums(n_rows, pixels, channels, groups, rows_per_part, stats, x, dy, partials, shared);                 \
    }                                                                                                                    \
    extern "C" __global__ void norm_finish_parameters_##name(                                                            \
        index_t channels, index_t n_parts, const double *partials, T *dweight, T *dbias, int add)                        \
    {                                                                                                                    \
        finish_parameters(channels, n_parts, partials, dweight, dbias, add);                                             \
    }

KERNELS(float, f32)
KERNELS(double, f64)
