// Matrix products c = a*b, or c += a*b, for strided a and b and row-major c, where there is no cuBLAS.
//
// A block of 256 threads owns a tile of c and walks the summed dimension 16 at a time through shared memory; a thread owns a few
// numbers of the tile in registers. Every sum is one chain of fused multiply-adds in the order of k: the bits depend on the sizes alone.

typedef long long index_t;

#define DEPTH 16
#define THREADS 256

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// An operand: element (i, j) stands at i*row + j*col.
struct Strides {
    index_t row, col;
};

// ROWS x COLUMNS of c per block, R x C per thread.
template <typename T, int ROWS, int COLUMNS, int R, int C>
__device__ __forceinline__ void product(
    index_t m, index_t n, index_t k, const T *a, Strides a_strides, const T *b, Strides b_strides, T *c, int add,
    T (*a_tile)[ROWS + 1], T (*b_tile)[COLUMNS + 1])
{
    const int across = COLUMNS / C;
    int row_in = threadIdx.x / across * R, column_in = threadIdx.x % across * C;
    index_t first_row = (index_t)blockIdx.x * ROWS, first_column = (index_t)blockIdx.y * COLUMNS;
    T sums[R][C];
    for (int i = 0; i < R; i++) {
        for (int j = 0; j < C; j++) {
            sums[i][j] = (T)0;
        }
    }
    for (index_t first = 0; first < k; first += DEPTH) {
        // Neighbouring threads read neighbours in memory, along whichever side of the operand is contiguous.
        for (int at = threadIdx.x; at < ROWS * DEPTH; at += THREADS) {
            int i = a_strides.col == 1 ? at / DEPTH : at % ROWS;
            int p = a_strides.col == 1 ? at % DEPTH : at / ROWS;
            index_t row = first_row + i, depth = first + p;
            a_tile[p][i] = row < m && depth < k ? a[row * a_strides.row + depth * a_strides.col] : (T)0;
        }
        for (int at = threadIdx.x; at < COLUMNS * DEPTH; at += THREADS) {
            int j = b_strides.row == 1 ? at / DEPTH : at % COLUMNS;
            int p = b_strides.row == 1 ? at % DEPTH : at / COLUMNS;
            index_t column = first_column + j, depth = first + p;
            b_tile[p][j] = column < n && depth < k ? b[depth * b_strides.row + column * b_strides.col] : (T)0;
        }
        __syncthreads();
        int end = k - first < DEPTH ? (int)(k - first) : DEPTH;
        for (int p = 0; p < end; p++) {
            T left[R], right[C];
            for (int i = 0; i < R; i++) {
                left[i] = a_tile[p][row_in + i];
            }
            for (int j = 0; j < C; j++) {
                right[j] = b_tile[p][column_in + j];
            }
            for (int i = 0; i < R; i++) {
                for (int j = 0; j < C; j++) {
                    sums[i][j] = multiply_add(left[i], right[j], sums[i][j]);
                }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < R; i++) {
        for (int j = 0; j < C; j++) {
            index_t row = first_row + row_in + i, column = first_column + column_in + j;
            if (row < m && column < n) {
                T *into = c + row * n + column;
                *into = add ? *into + sums[i][j] : sums[i][j];
            }
        }
    }
}

// `product` for large results, `product_small` where a tile of 64 x 64 would leave most of the device idle.
#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) product_##name(                                                \
        index_t m, index_t n, index_t k, const T *a, Strides a_strides, const T *b, Strides b_strides, T *c, int add)    \
    {                                                                                                                    \
        __shared__ T a_tile[DEPTH][65];                                                                                  \
        __shared__ T b_tile[DEPTH][65];                                                                                  \
        product<T, 64, 64, 4, 4>(m, n, k, a, a_strides, b, b_strides, c, add, a_tile, b_tile);                           \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) product_small_##name(                                          \
        index_t m, index_t n, index_t k, const T *a, Strides a_strides, const T *b, Strides b_strides, T *c, int add)    \
    {                                                                                                                    \
        __shared__ T a_tile[DEPTH][33];                                                                                  \
        __shared__ T b_tile[DEPTH][17];                                                                                  \
        product<T, 32, 16, 2, 1>(m, n, k, a, a_strides, b, b_strides, c, add, a_tile, b_tile);                           \
    }

KERNELS(float, f32)
KERNELS(double, f64)
