// Batch normalisation over the rows of [n_rows, channels], as batch_norm.rs.
//
// Blocks are CHANNELS_WIDE x ROWS_DEEP threads (blockDim.x by blockDim.y, 256 together). Sums run in double precision over fixed
// parts of the rows: thread, then block, then parts in order, so that they depend on the shape alone. No atomics.

typedef long long index_t;

#define BLOCK 256

// 1/sqrt(var + eps) as the CPU takes it.
template <typename T>
__device__ __forceinline__ double inverse_deviation(T var, double eps)
{
    return 1.0 / sqrt((double)var + eps);
}

// The sum over the threads of a block that stand in one column (equal threadIdx.x), in threads with threadIdx.y = 0.
__device__ __forceinline__ double sum_over_rows(double value, double *shared)
{
    int at = threadIdx.y * blockDim.x + threadIdx.x;
    shared[at] = value;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if ((int)threadIdx.y < half) {
            shared[at] += shared[at + half * blockDim.x];
        }
        __syncthreads();
    }
    value = shared[threadIdx.x];
    // The memory is used again by the next sum.
    __syncthreads();
    return value;
}

// Sums of x - shift and of its square, shift being the first row, over the rows of part blockIdx.y.
// partials: [part][2][channels].
template <typename T>
__device__ __forceinline__ void moments(
    index_t n_rows, index_t channels, index_t rows_per_part, const T *x, double *partials, double *shared)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    double sum = 0.0, square = 0.0;
    if (c < channels) {
        double shift = (double)x[c];
        for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
            double d = (double)x[row * channels + c] - shift;
            sum += d;
            square += d * d;
        }
    }
    sum = sum_over_rows(sum, shared);
    square = sum_over_rows(square, shared);
    if (c < channels && threadIdx.y == 0) {
        partials[(2 * (index_t)blockIdx.y) * channels + c] = sum;
        partials[(2 * (index_t)blockIdx.y + 1) * channels + c] = square;
    }
}

// Adds the parts up in order: mean and biased variance, one thread per channel.
template <typename T>
__device__ __forceinline__ void finish_statistics(
    index_t n_rows, index_t channels, index_t n_parts, const T *x, const double *partials, T *mean, T *var)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) {
        return;
    }
    double sum = 0.0, square = 0.0;
    for (index_t part = 0; part < n_parts; part++) {
        sum += partials[2 * part * channels + c];
        square += partials[(2 * part + 1) * channels + c];
    }
    double d = sum / (double)n_rows;
    double v = square / (double)n_rows - d * d;
    mean[c] = (T)((double)x[c] + d);
    // Rounding may leave a tiny negative number; NaN stays NaN.
    var[c] = (T)(v < 0.0 ? 0.0 : v);
}

// y = (x - mean)/sqrt(var + eps)*weight + bias; weight and bias may be null.
template <typename T>
__device__ __forceinline__ void normalize(
    index_t n_rows, index_t channels, index_t rows_per_part, double eps, const T *x, const T *mean, const T *var, const T *weight,
    const T *bias, T *y)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) {
        return;
    }
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    double wide = inverse_deviation(var[c], eps);
    T scale = (T)(weight ? wide * (double)weight[c] : wide);
    T m = mean[c];
    T b = bias ? bias[c] : (T)0;
    for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
        index_t at = row * channels + c;
        y[at] = (x[at] - m) * scale + b;
    }
}

// Sums of dy and of dy*(x - mean) over the rows of part blockIdx.y; partials: [part][2][channels].
template <typename T>
__device__ __forceinline__ void gradient_moments(
    index_t n_rows, index_t channels, index_t rows_per_part, const T *x, const T *mean, const T *dy, double *partials, double *shared)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    double sum = 0.0, product = 0.0;
    if (c < channels) {
        double m = (double)mean[c];
        for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
            index_t at = row * channels + c;
            double g = (double)dy[at];
            sum += g;
            product += g * ((double)x[at] - m);
        }
    }
    sum = sum_over_rows(sum, shared);
    product = sum_over_rows(product, shared);
    if (c < channels && threadIdx.y == 0) {
        partials[(2 * (index_t)blockIdx.y) * channels + c] = sum;
        partials[(2 * (index_t)blockIdx.y + 1) * channels + c] = product;
    }
}

// Adds the parts up in order: dweight and dbias (either may be null), and for batch statistics the coefficients of
// dx = a*dy + (b*(x - mean) + c), [3][channels], where asked for.
template <typename T>
__device__ __forceinline__ void finish_gradient(
    index_t n_rows, index_t channels, index_t n_parts, double eps, const double *partials, const T *var, const T *weight, T *dweight,
    T *dbias, int add, T *coefficients)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) {
        return;
    }
    double sum = 0.0, product = 0.0;
    for (index_t part = 0; part < n_parts; part++) {
        sum += partials[2 * part * channels + c];
        product += partials[(2 * part + 1) * channels + c];
    }
    double inv_std = inverse_deviation(var[c], eps);
    double scale = weight ? inv_std * (double)weight[c] : inv_std;
    double dgamma = product * inv_std;
    if (dweight) {
        dweight[c] = add ? dweight[c] + (T)dgamma : (T)dgamma;
    }
    if (dbias) {
        dbias[c] = add ? dbias[c] + (T)sum : (T)sum;
    }
    if (coefficients) {
        double n = (double)n_rows;
        coefficients[c] = (T)scale;
        coefficients[channels + c] = (T)(-scale * inv_std * dgamma / n);
        coefficients[2 * channels + c] = (T)(-scale * sum / n);
    }
}

template <typename T>
__device__ __forceinline__ void batch_gradient(
    index_t n_rows, index_t channels, index_t rows_per_part, const T *x, const T *mean, const T *dy, const T *coefficients, T *dx, int add)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) {
        return;
    }
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    T a = coefficients[c], b = coefficients[channels + c], shift = coefficients[2 * channels + c], m = mean[c];
    for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
        index_t at = row * channels + c;
        T value = a * dy[at] + (b * (x[at] - m) + shift);
        dx[at] = add ? dx[at] + value : value;
    }
}

// dx = weight/sqrt(var + eps)*dy.
template <typename T>
__device__ __forceinline__ void stored_gradient(
    index_t n_rows, index_t channels, index_t rows_per_part, double eps, const T *var, const T *weight, const T *dy, T *dx, int add)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= channels) {
        return;
    }
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    double wide = inverse_deviation(var[c], eps);
    T scale = (T)(weight ? wide * (double)weight[c] : wide);
    for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
        index_t at = row * channels + c;
        T value = scale * dy[at];
        dx[at] = add ? dx[at] + value : value;
    }
}

// A running statistic moves towards a batch's, rounded to the batch's precision.
template <typename T>
__device__ __forceinline__ void update_running(index_t channels, double momentum, double factor, const T *batch, double *running)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c < channels) {
        running[c] = (double)(T)((1.0 - momentum) * running[c] + momentum * factor * (double)batch[c]);
    }
}

// Mean and variance over all batches take one more in.
template <typename T>
__device__ __forceinline__ void merge_moments(
    index_t channels, double share, double factor, double between, const T *batch_mean, const T *batch_var, double *mean, double *var)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (c < channels) {
        double d = (double)batch_mean[c] - mean[c];
        mean[c] += share * d;
        var[c] += share * (factor * (double)batch_var[c] - var[c]) + between * share * (1.0 - share) * d * d;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void batch_norm_moments_##name(                                                                \
        index_t n_rows, index_t channels, index_t rows_per_part, const T *x, double *partials)                           \
    {                                                                                                                    \
        __shared__ double shared[BLOCK];                                                                                 \
        moments(n_rows, channels, rows_per_part, x, partials, shared);                                                   \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_finish_statistics_##name(                                                      \
        index_t n_rows, index_t channels, index_t n_parts, const T *x, const double *partials, T *mean, T *var)          \
    {                                                                                                                    \
        finish_statistics(n_rows, channels, n_parts, x, partials, mean, var);                                            \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_normalize_##name(                                                              \
        index_t n_rows, index_t channels, index_t rows_per_part, double eps, const T *x, const T *mean, const T *var,    \
        const T *weight, const T *bias, T *y)                                                                            \
    {                                                                                                                    \
        normalize(n_rows, channels, rows_per_part, eps, x, mean, var, weight, bias, y);                                  \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_gradient_moments_##name(                                                       \
        index_t n_rows, index_t channels, index_t rows_per_part, const T *x, const T *mean, const T *dy, double *partials) \
    {                                                                                                                    \
        __shared__ double shared[BLOCK];                                                                                 \
        gradient_moments(n_rows, channels, rows_per_part, x, mean, dy, partials, shared);                                \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_finish_gradient_##name(                                                        \
        index_t n_rows, index_t channels, index_t n_parts, double eps, const double *partials, const T *var,             \
        const T *weight, T *dweight, T *dbias, int add, T *coefficients)                                                 \
    {                                                                                                                    \
        finish_gradient(n_rows, channels, n_parts, eps, partials, var, weight, dweight, dbias, add, coefficients);       \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_batch_gradient_##name(                                                         \
        index_t n_rows, index_t channels, index_t rows_per_part, const T *x, const T *mean, const T *dy,                 \
        const T *coefficients, T *dx, int add)                                                                           \
    {                                                                                                                    \
        batch_gradient(n_rows, channels, rows_per_part, x, mean, dy, coefficients, dx, add);                             \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_stored_gradient_##name(                                                        \
        index_t n_rows, index_t channels, index_t rows_per_part, double eps, const T *var, const T *weight, const T *dy, \
        T *dx, int add)                                                                                                  \
    {                                                                                                                    \
        stored_gradient(n_rows, channels, rows_per_part, eps, var, weight, dy, dx, add);                                 \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_update_running_##name(                                                         \
        index_t channels, double momentum, double factor, const T *batch, double *running)                               \
    {                                                                                                                    \
        update_running(channels, momentum, factor, batch, running);                                                      \
    }                                                                                                                    \
    extern "C" __global__ void batch_norm_merge_moments_##name(                                                          \
        index_t channels, double share, double factor, double between, const T *batch_mean, const T *batch_var,          \
        double *mean, double *var)                                                                                       \
    {                                                                                                                    \
        merge_moments(channels, share, factor, between, batch_mean, batch_var, mean, var);                               \
    }

KERNELS(float, f32)
KERNELS(double, f64)
