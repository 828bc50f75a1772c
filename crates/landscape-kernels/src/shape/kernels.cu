// Elements moved, not changed, as shape.rs: transposed images, axes in another order, slices, and columns copied from one row length to another.

typedef long long index_t;

#define SIDE 32
#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// Every matrix [n_rows, n_columns] of x transposed, in squares of 32 by way of shared memory; blocks are 32 x 8.
template <typename T>
__device__ __forceinline__ void transpose(
    index_t n_matrices, index_t n_rows, index_t n_columns, const T *x, T *y, int add, T (*square)[SIDE + 1])
{
    index_t across = (n_columns + SIDE - 1) / SIDE, down = (n_rows + SIDE - 1) / SIDE;
    for (index_t tile = blockIdx.x; tile < n_matrices * across * down; tile += gridDim.x) {
        index_t start = tile / (across * down) * n_rows * n_columns;
        index_t first_row = tile / across % down * SIDE, first_column = tile % across * SIDE;
        for (int k = threadIdx.y; k < SIDE; k += blockDim.y) {
            index_t row = first_row + k, column = first_column + threadIdx.x;
            if (row < n_rows && column < n_columns) {
                square[k][threadIdx.x] = x[start + row * n_columns + column];
            }
        }
        __syncthreads();
        for (int k = threadIdx.y; k < SIDE; k += blockDim.y) {
            index_t column = first_column + k, row = first_row + threadIdx.x;
            if (row < n_rows && column < n_columns) {
                T *into = y + start + column * n_rows + row;
                T value = square[threadIdx.x][k];
                *into = add ? *into + value : value;
            }
        }
        __syncthreads();
    }
}

// into[row*into_width + j] = from[row*from_width + j] for j < width; one side of a concatenation.
template <typename T>
__device__ __forceinline__ void copy_columns(
    index_t n_rows, index_t width, const T *from, index_t from_width, T *into, index_t into_width, int add)
{
    FOR_EACH(i, n_rows * width) {
        index_t row = i / width, j = i % width;
        T value = from[row * from_width + j];
        T *at = into + row * into_width + j;
        *at = add ? *at + value : value;
    }
}

#define MAX_AXES 8

// The axes of y, outermost first, and by how much x moves along each.
struct PermuteAxes {
    index_t n_axes;
    index_t sizes[MAX_AXES];
    index_t strides[MAX_AXES];
};

template <typename T>
__device__ __forceinline__ void permute(index_t n, PermuteAxes axes, const T *x, T *y, int add)
{
    FOR_EACH(i, n) {
        index_t rest = i, from = 0;
        for (index_t axis = axes.n_axes - 1; axis >= 0; axis--) {
            from += rest % axes.sizes[axis] * axes.strides[axis];
            rest /= axes.sizes[axis];
        }
        y[i] = add ? y[i] + x[from] : x[from];
    }
}

// The indices start + k*step, k < len, of the middle axis of [outer, axis, inner].
struct SliceSizes {
    index_t axis, inner, start, step, len;
};

template <typename T>
__device__ __forceinline__ void slice_forward(index_t n, SliceSizes s, const T *x, T *y)
{
    FOR_EACH(i, n) {
        index_t outer = i / (s.len * s.inner), taken = i / s.inner % s.len;
        y[i] = x[(outer * s.axis + s.start + taken * s.step) * s.inner + i % s.inner];
    }
}

template <typename T>
__device__ __forceinline__ void slice_backward(index_t n, SliceSizes s, const T *dy, T *dx, int add)
{
    FOR_EACH(i, n) {
        index_t outer = i / (s.axis * s.inner), from_start = i / s.inner % s.axis - s.start;
        index_t taken = from_start / s.step;
        int is_taken = from_start >= 0 && from_start % s.step == 0 && taken < s.len;
        if (is_taken) {
            T value = dy[(outer * s.len + taken) * s.inner + i % s.inner];
            // As the CPU, which adds to zeros.
            dx[i] = (add ? dx[i] : (T)0) + value;
        } else if (!add) {
            dx[i] = (T)0;
        }
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void transpose_##name(                                                                         \
        index_t n_matrices, index_t n_rows, index_t n_columns, const T *x, T *y, int add)                                \
    {                                                                                                                    \
        __shared__ T square[SIDE][SIDE + 1];                                                                             \
        transpose(n_matrices, n_rows, n_columns, x, y, add, square);                                                     \
    }                                                                                                                    \
    extern "C" __global__ void copy_columns_##name(                                                                      \
        index_t n_rows, index_t width, const T *from, index_t from_width, T *into, index_t into_width, int add)          \
    {                                                                                                                    \
        copy_columns(n_rows, width, from, from_width, into, into_width, add);                                            \
    }                                                                                                                    \
    extern "C" __global__ void permute_##name(index_t n, PermuteAxes axes, const T *x, T *y, int add)                    \
    {                                                                                                                    \
        permute(n, axes, x, y, add);                                                                                     \
    }                                                                                                                    \
    extern "C" __global__ void slice_forward_##name(index_t n, SliceSizes sizes, const T *x, T *y)                       \
    {                                                                                                                    \
        slice_forward(n, sizes, x, y);                                                                                   \
    }                                                                                                                    \
    extern "C" __global__ void slice_backward_##name(index_t n, SliceSizes sizes, const T *dy, T *dx, int add)           \
    {                                                                                                                    \
        slice_backward(n, sizes, dy, dx, add);                                                                           \
    }

KERNELS(float, f32)
KERNELS(double, f64)
