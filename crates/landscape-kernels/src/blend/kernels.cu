// The two linear maps between control points and the point: the twins of blend.rs, with its bits.
//
// One launch serves many tensors: it is handed a table by value, and a block looks up once which piece it works on. Loads and stores
// are of 16 bytes where all pointers of a piece allow it. Sums are taken in the order of the rows, products and sums uncontracted.

typedef long long index_t;

#define MAX_ROWS 32
#define MAX_PIECES 160
#define MAX_POINTERS 640
#define THREADS 256
// Elements that a block works on, in vectors of 16 bytes per thread.
#define VECTORS 4

// What one launch works on: pieces, runs of numbers that lie apart in memory.
struct Table {
    // Of each piece those of its rows, then that of the point (blend) or its gradient (spread).
    unsigned long long pointer[MAX_POINTERS];
    double c[MAX_ROWS];
    index_t len[MAX_PIECES];
    unsigned first_block[MAX_PIECES + 1];
    unsigned n_rows;
    unsigned n_pieces;
    // Bit k: row k is of bf16.
    unsigned narrow;
};

template <typename T>
struct alignas(16) Pack {
    T at[16 / sizeof(T)];
};
template <int N>
struct alignas(2 * N) NarrowPack {
    unsigned short at[N];
};

template <typename T>
__device__ __forceinline__ T widen(unsigned short bits)
{
    return (T)__uint_as_float((unsigned)bits << 16);
}

// The piece that this block works on.
__device__ __forceinline__ unsigned own_piece(const unsigned *first_block, unsigned n_pieces)
{
    unsigned low = 0, high = n_pieces;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (first_block[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

// Whether the first element of every row of a piece stands where 16 bytes (8 of bf16) can be loaded at once.
template <typename T>
__device__ __forceinline__ bool aligned(const Table &table, const unsigned long long *pointer)
{
    unsigned long long bits = 0;
    for (unsigned k = 0; k <= table.n_rows; k++) {
        bool narrow = k < table.n_rows && (table.narrow >> k & 1);
        // Half as many bytes hold as many elements.
        bits |= pointer[k] % (narrow ? 2 * (16 / sizeof(T)) : 16);
    }
    return bits == 0;
}

// w = sum of c_k row_k; K rows, or as many as the table says for K = 0.
template <typename T, int K>
__device__ __forceinline__ void blend_piece(const Table &table)
{
    const int N = 16 / sizeof(T);
    const int rows = K ? K : (int)table.n_rows;
    unsigned piece = own_piece(table.first_block, table.n_pieces);
    const unsigned long long *pointer = table.pointer + piece * (table.n_rows + 1);
    T *out = (T *)pointer[rows];
    index_t start = (index_t)(blockIdx.x - table.first_block[piece]) * (THREADS * VECTORS * N);
    index_t end = start + THREADS * VECTORS * N;
    end = end < table.len[piece] ? end : table.len[piece];
    index_t packed = aligned<T>(table, pointer) ? end - (end - start) % N : start;
    for (index_t i = start + threadIdx.x * N; i < packed; i += THREADS * N) {
        Pack<T> sum;
#pragma unroll
        for (int k = 0; k < rows; k++) {
            T c = (T)table.c[k];
            Pack<T> row;
            if (table.narrow >> k & 1) {
                NarrowPack<N> bits = *(const NarrowPack<N> *)((const unsigned short *)pointer[k] + i);
                for (int j = 0; j < N; j++) {
                    row.at[j] = widen<T>(bits.at[j]);
                }
            } else {
                row = *(const Pack<T> *)((const T *)pointer[k] + i);
            }
            for (int j = 0; j < N; j++) {
                sum.at[j] = k == 0 ? c * row.at[j] : sum.at[j] + c * row.at[j];
            }
        }
        *(Pack<T> *)(out + i) = sum;
    }
    for (index_t i = packed + threadIdx.x; i < end; i += THREADS) {
        T sum = (T)0;
        for (int k = 0; k < rows; k++) {
            T value = table.narrow >> k & 1 ? widen<T>(((const unsigned short *)pointer[k])[i]) : ((const T *)pointer[k])[i];
            T term = (T)table.c[k] * value;
            sum = k == 0 ? term : sum + term;
        }
        out[i] = sum;
    }
}

template <typename T>
__device__ __forceinline__ void blend(const Table &table)
{
    switch (table.n_rows) {
    case 1: blend_piece<T, 1>(table); break;
    case 2: blend_piece<T, 2>(table); break;
    case 3: blend_piece<T, 3>(table); break;
    case 4: blend_piece<T, 4>(table); break;
    default: blend_piece<T, 0>(table);
    }
}

template <typename T>
__device__ __forceinline__ T spread_one(T c, T g, T before, int add)
{
    // A coefficient of zero gives exactly zero, also where the gradient is no number.
    if (c == (T)0) {
        return add ? before : (T)0;
    }
    return add ? before + c * g : c * g;
}

// row_k = c_k g, or row_k += c_k g: the gradient is read once for all rows.
template <typename T>
__device__ __forceinline__ void spread(const Table &table, int add)
{
    const int N = 16 / sizeof(T);
    unsigned piece = own_piece(table.first_block, table.n_pieces);
    const unsigned long long *pointer = table.pointer + piece * (table.n_rows + 1);
    const T *g = (const T *)pointer[table.n_rows];
    index_t start = (index_t)(blockIdx.x - table.first_block[piece]) * (THREADS * VECTORS * N);
    index_t end = start + THREADS * VECTORS * N;
    end = end < table.len[piece] ? end : table.len[piece];
    index_t packed = aligned<T>(table, pointer) ? end - (end - start) % N : start;
    for (index_t i = start + threadIdx.x * N; i < packed; i += THREADS * N) {
        Pack<T> gradient = *(const Pack<T> *)(g + i);
        for (unsigned k = 0; k < table.n_rows; k++) {
            T c = (T)table.c[k];
            Pack<T> *row = (Pack<T> *)((T *)pointer[k] + i);
            Pack<T> before = {}, after;
            if (add) {
                before = *row;
            }
            for (int j = 0; j < N; j++) {
                after.at[j] = spread_one(c, gradient.at[j], before.at[j], add);
            }
            *row = after;
        }
    }
    for (index_t i = packed + threadIdx.x; i < end; i += THREADS) {
        for (unsigned k = 0; k < table.n_rows; k++) {
            T *row = (T *)pointer[k];
            row[i] = spread_one((T)table.c[k], g[i], add ? row[i] : (T)0, add);
        }
    }
}

#define KERNELS(T, name)                                                                                              \
    extern "C" __global__ void __launch_bounds__(THREADS) blend_##name(const __grid_constant__ Table table)           \
    {                                                                                                                 \
        blend<T>(table);                                                                                              \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) spread_##name(const __grid_constant__ Table table, int add) \
    {                                                                                                                 \
        spread<T>(table, add);                                                                                        \
    }

KERNELS(float, f32)
KERNELS(double, f64)
