// Images in another size, or the gradient of that, as upsample.rs: sums over a few rows times a few columns, listed in tables.

typedef long long index_t;

// y[image, p, q, c] = sum over rows of p and columns of q of (row weight * column weight) * x[image, row, column, c].
template <typename T>
__device__ __forceinline__ void upsample(
    index_t n, index_t channels, index_t in_height, index_t in_width, index_t out_height, index_t out_width, const unsigned *row_starts,
    const unsigned *rows, const double *row_weights, const unsigned *column_starts, const unsigned *columns, const double *column_weights,
    const T *x, T *y, int add)
{
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += (index_t)gridDim.x * blockDim.x) {
        index_t c = i % channels, q = i / channels % out_width, p = i / channels / out_width % out_height;
        const T *image = x + i / channels / out_width / out_height * in_height * in_width * channels + c;
        double sum = 0.0;
        for (unsigned r = row_starts[p]; r < row_starts[p + 1]; r++) {
            for (unsigned k = column_starts[q]; k < column_starts[q + 1]; k++) {
                double factor = row_weights[r] * column_weights[k];
                sum += factor * (double)image[((index_t)rows[r] * in_width + columns[k]) * channels];
            }
        }
        y[i] = add ? y[i] + (T)sum : (T)sum;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void upsample_##name(                                                                          \
        index_t n, index_t channels, index_t in_height, index_t in_width, index_t out_height, index_t out_width,         \
        const unsigned *row_starts, const unsigned *rows, const double *row_weights, const unsigned *column_starts,      \
        const unsigned *columns, const double *column_weights, const T *x, T *y, int add)                                \
    {                                                                                                                    \
        upsample(n, channels, in_height, in_width, out_height, out_width, row_starts, rows, row_weights, column_starts,  \
                 columns, column_weights, x, y, add);                                                                    \
    }

KERNELS(float, f32)
KERNELS(double, f64)
