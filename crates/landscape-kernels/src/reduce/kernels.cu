// Column sums of [n_rows, n_columns] in double precision over fixed parts of the rows, and rows filled with one vector: what the
// bias of a linear layer or a convolution needs.

typedef long long index_t;

#define BLOCK 256
#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// partials: [part][n_columns]; blocks are blockDim.x columns by blockDim.y rows, 256 threads.
template <typename T>
__device__ __forceinline__ void column_sums(
    index_t n_rows, index_t n_columns, index_t rows_per_part, const T *x, double *partials, double *shared)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    index_t first = (index_t)blockIdx.y * rows_per_part;
    index_t end = first + rows_per_part < n_rows ? first + rows_per_part : n_rows;
    double sum = 0.0;
    if (c < n_columns) {
        for (index_t row = first + threadIdx.y; row < end; row += blockDim.y) {
            sum += (double)x[row * n_columns + c];
        }
    }
    int at = threadIdx.y * blockDim.x + threadIdx.x;
    shared[at] = sum;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if ((int)threadIdx.y < half) {
            shared[at] += shared[at + half * blockDim.x];
        }
        __syncthreads();
    }
    if (c < n_columns && threadIdx.y == 0) {
        partials[(index_t)blockIdx.y * n_columns + c] = shared[at];
    }
}

// The parts added up in order.
template <typename T>
__device__ __forceinline__ void finish_column_sums(index_t n_columns, index_t n_parts, const double *partials, T *into, int add)
{
    FOR_EACH(c, n_columns) {
        double sum = 0.0;
        for (index_t part = 0; part < n_parts; part++) {
            sum += partials[part * n_columns + c];
        }
        into[c] = add ? into[c] + (T)sum : (T)sum;
    }
}

// Every row of y becomes `row`.
template <typename T>
__device__ __forceinline__ void fill_rows(index_t n, index_t n_columns, const T *row, T *y)
{
    FOR_EACH(i, n) {
        y[i] = row[i % n_columns];
    }
}

// Partial results of n numbers each, added up in order.
template <typename T>
__device__ __forceinline__ void sum_partials(index_t n, index_t n_parts, const T *partials, T *into)
{
    FOR_EACH(i, n) {
        T sum = partials[i];
        for (index_t part = 1; part < n_parts; part++) {
            sum += partials[part * n + i];
        }
        into[i] = sum;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void column_sums_##name(                                                                       \
        index_t n_rows, index_t n_columns, index_t rows_per_part, const T *x, double *partials)                          \
    {                                                                                                                    \
        __shared__ double shared[BLOCK];                                                                                 \
        column_sums(n_rows, n_columns, rows_per_part, x, partials, shared);                                              \
    }                                                                                                                    \
    extern "C" __global__ void finish_column_sums_##name(                                                                \
        index_t n_columns, index_t n_parts, const double *partials, T *into, int add)                                    \
    {                                                                                                                    \
        finish_column_sums(n_columns, n_parts, partials, into, add);                                                     \
    }                                                                                                                    \
    extern "C" __global__ void fill_rows_##name(index_t n, index_t n_columns, const T *row, T *y)                        \
    {                                                                                                                    \
        fill_rows(n, n_columns, row, y);                                                                                 \
    }                                                                                                                    \
    extern "C" __global__ void sum_partials_##name(index_t n, index_t n_parts, const T *partials, T *into)               \
    {                                                                                                                    \
        sum_partials(n, n_parts, partials, into);                                                                        \
    }

KERNELS(float, f32)
KERNELS(double, f64)
