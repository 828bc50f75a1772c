// Convolution on channels-last images where there is no cuDNN, and the packing of weights.
//
// The three products of a convolution are matrix products whose left operand is gathered on the way into shared memory (never
// stored): output pixels by taps and channels. As in gemm/kernels.cu a block of 256 threads owns a tile, 16 of the summed
// dimension at a time, every sum in the order of that dimension. The weight gradient sums over pixels in fixed parts, added up by
// `sum_partials`. Depthwise convolutions, which have no such dimension, have loops of their own.

typedef long long index_t;

#define DEPTH 16
#define THREADS 256
#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// The sizes; channels are those of one group, [0] is rows and [1] columns.
struct ConvSizes {
    index_t n, groups, in_group, out_group;
    index_t in[2], out[2], kernel[2], stride[2], padding[2], dilation[2];
};

// Where tap t of output pixel `pixel` (through all images) looks: the number of an input pixel, or -1 outside.
__device__ __forceinline__ index_t tapped(const ConvSizes &s, index_t pixel, index_t tap)
{
    index_t j = pixel % s.out[1], i = pixel / s.out[1] % s.out[0], image = pixel / (s.out[0] * s.out[1]);
    index_t y = i * s.stride[0] + tap / s.kernel[1] * s.dilation[0] - s.padding[0];
    index_t x = j * s.stride[1] + tap % s.kernel[1] * s.dilation[1] - s.padding[1];
    return y < 0 || y >= s.in[0] || x < 0 || x >= s.in[1] ? -1 : (image * s.in[0] + y) * s.in[1] + x;
}

// The output pixel whose tap t looks at input pixel `pixel`, or -1.
__device__ __forceinline__ index_t tapping(const ConvSizes &s, index_t pixel, index_t tap)
{
    index_t j = pixel % s.in[1], i = pixel / s.in[1] % s.in[0], image = pixel / (s.in[0] * s.in[1]);
    index_t y = i + s.padding[0] - tap / s.kernel[1] * s.dilation[0];
    index_t x = j + s.padding[1] - tap % s.kernel[1] * s.dilation[1];
    if (y < 0 || x < 0 || y % s.stride[0] != 0 || x % s.stride[1] != 0) {
        return -1;
    }
    y /= s.stride[0];
    x /= s.stride[1];
    return y >= s.out[0] || x >= s.out[1] ? -1 : (image * s.out[0] + y) * s.out[1] + x;
}

// Left operands. at(row, depth) is 0 outside.
template <typename T>
struct OutputColumns { // [output pixels][taps * in_group]
    const ConvSizes &s;
    const T *x;
    index_t group;
    __device__ __forceinline__ T at(index_t pixel, index_t depth) const
    {
        index_t from = tapped(s, pixel, depth / s.in_group);
        return from < 0 ? (T)0 : x[(from * s.groups + group) * s.in_group + depth % s.in_group];
    }
};

template <typename T>
struct InputColumns { // [input pixels][taps * out_group]
    const ConvSizes &s;
    const T *dy;
    index_t group;
    __device__ __forceinline__ T at(index_t pixel, index_t depth) const
    {
        index_t from = tapping(s, pixel, depth / s.out_group);
        return from < 0 ? (T)0 : dy[(from * s.groups + group) * s.out_group + depth % s.out_group];
    }
};

template <typename T>
struct TransposedColumns { // [taps * in_group][output pixels], from pixel `first` on
    OutputColumns<T> columns;
    index_t first;
    __device__ __forceinline__ T at(index_t row, index_t depth) const { return columns.at(first + depth, row); }
};

// Right operands.
template <typename T>
struct Packed { // [taps * in_group][out_group]
    const T *w;
    index_t width;
    __device__ __forceinline__ T at(index_t depth, index_t column) const { return w[depth * width + column]; }
};

template <typename T>
struct PackedTransposed { // [taps * out_group][in_group]
    const T *w;
    index_t in_group, out_group;
    __device__ __forceinline__ T at(index_t depth, index_t column) const
    {
        return w[(depth / out_group * in_group + column) * out_group + depth % out_group];
    }
};

template <typename T>
struct Pixels { // [output pixels][out_group], from pixel `first` on
    const T *dy;
    index_t first, row_len;
    __device__ __forceinline__ T at(index_t depth, index_t column) const { return dy[(first + depth) * row_len + column]; }
};

// c[row*c_width + column] = bias[column] + sum over k of a.at(row, k)*b.at(k, column), or added.
template <typename T, int ROWS, int COLUMNS, int R, int C, typename A, typename B>
__device__ __forceinline__ void product(
    index_t m, index_t n, index_t k, const A &a, const B &b, const T *bias, T *c, index_t c_width, int add, T *a_tile, T *b_tile)
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
        for (int at = threadIdx.x; at < ROWS * DEPTH; at += THREADS) {
            index_t row = first_row + at / DEPTH, depth = first + at % DEPTH;
            a_tile[at % DEPTH * (ROWS + 1) + at / DEPTH] = row < m && depth < k ? a.at(row, depth) : (T)0;
        }
        for (int at = threadIdx.x; at < COLUMNS * DEPTH; at += THREADS) {
            index_t column = first_column + at % COLUMNS, depth = first + at / COLUMNS;
            b_tile[at / COLUMNS * (COLUMNS + 1) + at % COLUMNS] = column < n && depth < k ? b.at(depth, column) : (T)0;
        }
        __syncthreads();
        int end = k - first < DEPTH ? (int)(k - first) : DEPTH;
        for (int p = 0; p < end; p++) {
            for (int i = 0; i < R; i++) {
                T left = a_tile[p * (ROWS + 1) + row_in + i];
                for (int j = 0; j < C; j++) {
                    sums[i][j] = multiply_add(left, b_tile[p * (COLUMNS + 1) + column_in + j], sums[i][j]);
                }
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < R; i++) {
        for (int j = 0; j < C; j++) {
            index_t row = first_row + row_in + i, column = first_column + column_in + j;
            if (row < m && column < n) {
                T *into = c + row * c_width + column;
                T value = bias ? sums[i][j] + bias[column] : sums[i][j];
                *into = add ? *into + value : value;
            }
        }
    }
}

// blockIdx.z is the group.
template <typename T, int ROWS, int COLUMNS, int R, int C>
__device__ __forceinline__ void forward(const ConvSizes &s, const T *x, const T *packed, const T *bias, T *y, T *a_tile, T *b_tile)
{
    index_t group = blockIdx.z, k = s.kernel[0] * s.kernel[1] * s.in_group;
    OutputColumns<T> a = {s, x, group};
    Packed<T> b = {packed + group * k * s.out_group, s.out_group};
    const T *own_bias = bias ? bias + group * s.out_group : bias;
    product<T, ROWS, COLUMNS, R, C>(
        s.n * s.out[0] * s.out[1], s.out_group, k, a, b, own_bias, y + group * s.out_group, s.groups * s.out_group, 0, a_tile, b_tile);
}

template <typename T, int ROWS, int COLUMNS, int R, int C>
__device__ __forceinline__ void backward_input(const ConvSizes &s, const T *packed, const T *dy, T *dx, int add, T *a_tile, T *b_tile)
{
    index_t group = blockIdx.z, taps = s.kernel[0] * s.kernel[1];
    InputColumns<T> a = {s, dy, group};
    PackedTransposed<T> b = {packed + group * taps * s.in_group * s.out_group, s.in_group, s.out_group};
    const T *no_bias = 0;
    product<T, ROWS, COLUMNS, R, C>(
        s.n * s.in[0] * s.in[1], s.in_group, taps * s.out_group, a, b, no_bias, dx + group * s.in_group, s.groups * s.in_group, add,
        a_tile, b_tile);
}

// blockIdx.z is part*groups + group; partials: [part][packed weight].
template <typename T, int ROWS, int COLUMNS, int R, int C>
__device__ __forceinline__ void backward_weight(
    const ConvSizes &s, index_t pixels_per_part, const T *x, const T *dy, T *partials, T *a_tile, T *b_tile)
{
    index_t group = blockIdx.z % s.groups, part = blockIdx.z / s.groups;
    index_t k = s.kernel[0] * s.kernel[1] * s.in_group, n_pixels = s.n * s.out[0] * s.out[1];
    index_t first = part * pixels_per_part, left = n_pixels - first;
    TransposedColumns<T> a = {{s, x, group}, first};
    Pixels<T> b = {dy + group * s.out_group, first, s.groups * s.out_group};
    const T *no_bias = 0;
    product<T, ROWS, COLUMNS, R, C>(
        k, s.out_group, left < pixels_per_part ? left : pixels_per_part, a, b, no_bias,
        partials + (part * s.groups + group) * k * s.out_group, s.out_group, 0, a_tile, b_tile);
}

// Depthwise: one thread per element; weights are [tap][channel].
template <typename T>
__device__ __forceinline__ void depthwise_forward(const ConvSizes &s, const T *x, const T *packed, const T *bias, T *y)
{
    FOR_EACH(at, s.n * s.out[0] * s.out[1] * s.groups) {
        index_t c = at % s.groups, pixel = at / s.groups;
        T sum = bias ? bias[c] : (T)0;
        for (index_t tap = 0; tap < s.kernel[0] * s.kernel[1]; tap++) {
            index_t from = tapped(s, pixel, tap);
            if (from >= 0) {
                sum = multiply_add(x[from * s.groups + c], packed[tap * s.groups + c], sum);
            }
        }
        y[at] = sum;
    }
}

template <typename T>
__device__ __forceinline__ void depthwise_backward_input(const ConvSizes &s, const T *packed, const T *dy, T *dx, int add)
{
    FOR_EACH(at, s.n * s.in[0] * s.in[1] * s.groups) {
        index_t c = at % s.groups, pixel = at / s.groups;
        T sum = (T)0;
        for (index_t tap = 0; tap < s.kernel[0] * s.kernel[1]; tap++) {
            index_t from = tapping(s, pixel, tap);
            if (from >= 0) {
                sum = multiply_add(dy[from * s.groups + c], packed[tap * s.groups + c], sum);
            }
        }
        dx[at] = add ? dx[at] + sum : sum;
    }
}

// blockIdx.y is the tap, blockIdx.z the part; blocks are blockDim.x channels by blockDim.y pixels. partials: [part][tap][channel].
template <typename T>
__device__ __forceinline__ void depthwise_backward_weight(
    const ConvSizes &s, index_t pixels_per_part, const T *x, const T *dy, T *partials, T *shared)
{
    index_t c = (index_t)blockIdx.x * blockDim.x + threadIdx.x, n_pixels = s.n * s.out[0] * s.out[1];
    index_t first = (index_t)blockIdx.z * pixels_per_part;
    index_t end = first + pixels_per_part < n_pixels ? first + pixels_per_part : n_pixels;
    T sum = (T)0;
    if (c < s.groups) {
        for (index_t pixel = first + threadIdx.y; pixel < end; pixel += blockDim.y) {
            index_t from = tapped(s, pixel, blockIdx.y);
            if (from >= 0) {
                sum = multiply_add(x[from * s.groups + c], dy[pixel * s.groups + c], sum);
            }
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
    if (c < s.groups && threadIdx.y == 0) {
        partials[((index_t)blockIdx.z * gridDim.y + blockIdx.y) * s.groups + c] = shared[at];
    }
}

// The place in [out, in/groups, kh, kw] of packed weight `at`.
__device__ __forceinline__ index_t unpacked(const ConvSizes &s, index_t at)
{
    index_t taps = s.kernel[0] * s.kernel[1];
    if (s.groups > 1 && s.in_group == 1 && s.out_group == 1) {
        return at % s.groups * taps + at / s.groups;
    }
    index_t o = at % s.out_group, rest = at / s.out_group;
    index_t i = rest % s.in_group, tap = rest / s.in_group % taps, group = rest / (s.in_group * taps);
    return ((group * s.out_group + o) * s.in_group + i) * taps + tap;
}

template <typename T>
__device__ __forceinline__ void pack(const ConvSizes &s, const T *oihw, T *packed)
{
    FOR_EACH(at, s.groups * s.kernel[0] * s.kernel[1] * s.in_group * s.out_group) {
        packed[at] = oihw[unpacked(s, at)];
    }
}

template <typename T>
__device__ __forceinline__ void unpack(const ConvSizes &s, const T *packed, T *oihw, int add)
{
    FOR_EACH(at, s.groups * s.kernel[0] * s.kernel[1] * s.in_group * s.out_group) {
        T *into = oihw + unpacked(s, at);
        *into = add ? *into + packed[at] : packed[at];
    }
}

// [group][rows][columns] to [group][columns][rows], in tiles of 32 x 32 by blocks of 32 x 8; blockIdx.z is the group.
template <typename T>
__device__ __forceinline__ void transpose(index_t rows, index_t columns, const T *from, T *to, T *tile)
{
    from += (index_t)blockIdx.z * rows * columns;
    to += (index_t)blockIdx.z * rows * columns;
    index_t row = (index_t)blockIdx.x * 32, column = (index_t)blockIdx.y * 32;
    for (int i = threadIdx.y; i < 32; i += 8) {
        if (row + i < rows && column + threadIdx.x < columns) {
            tile[i * 33 + threadIdx.x] = from[(row + i) * columns + column + threadIdx.x];
        }
    }
    __syncthreads();
    for (int i = threadIdx.y; i < 32; i += 8) {
        if (column + i < columns && row + threadIdx.x < rows) {
            to[(column + i) * rows + row + threadIdx.x] = tile[threadIdx.x * 33 + i];
        }
    }
}

// Tiles of 64 x 64, and of 128 x 16 for at most 32 columns.
#define PRODUCTS(T, name, size, ROWS, COLUMNS, R, C)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS) conv2d_forward_##size##_##name(                                \
        ConvSizes s, const T *x, const T *packed, const T *bias, T *y)                                                   \
    {                                                                                                                    \
        __shared__ T a_tile[DEPTH * (ROWS + 1)];                                                                         \
        __shared__ T b_tile[DEPTH * (COLUMNS + 1)];                                                                      \
        forward<T, ROWS, COLUMNS, R, C>(s, x, packed, bias, y, a_tile, b_tile);                                          \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) conv2d_backward_input_##size##_##name(                         \
        ConvSizes s, const T *packed, const T *dy, T *dx, int add)                                                       \
    {                                                                                                                    \
        __shared__ T a_tile[DEPTH * (ROWS + 1)];                                                                         \
        __shared__ T b_tile[DEPTH * (COLUMNS + 1)];                                                                      \
        backward_input<T, ROWS, COLUMNS, R, C>(s, packed, dy, dx, add, a_tile, b_tile);                                  \
    }                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(THREADS) conv2d_backward_weight_##size##_##name(                        \
        ConvSizes s, index_t pixels_per_part, const T *x, const T *dy, T *partials)                                      \
    {                                                                                                                    \
        __shared__ T a_tile[DEPTH * (ROWS + 1)];                                                                         \
        __shared__ T b_tile[DEPTH * (COLUMNS + 1)];                                                                      \
        backward_weight<T, ROWS, COLUMNS, R, C>(s, pixels_per_part, x, dy, partials, a_tile, b_tile);                    \
    }

#define KERNELS(T, name)                                                                                                 \
    PRODUCTS(T, name, wide, 64, 64, 4, 4)                                                                                \
    PRODUCTS(T, name, narrow, 128, 16, 4, 2)                                                                             \
    extern "C" __global__ void depthwise_forward_##name(ConvSizes s, const T *x, const T *packed, const T *bias, T *y)   \
    {                                                                                                                    \
        depthwise_forward(s, x, packed, bias, y);                                                                        \
    }                                                                                                                    \
    extern "C" __global__ void depthwise_backward_input_##name(                                                          \
        ConvSizes s, const T *packed, const T *dy, T *dx, int add)                                                       \
    {                                                                                                                    \
        depthwise_backward_input(s, packed, dy, dx, add);                                                                \
    }                                                                                                                    \
    extern "C" __global__ void depthwise_backward_weight_##name(                                                         \
        ConvSizes s, index_t pixels_per_part, const T *x, const T *dy, T *partials)                                      \
    {                                                                                                                    \
        __shared__ T shared[THREADS];                                                                                    \
        depthwise_backward_weight(s, pixels_per_part, x, dy, partials, shared);                                          \
    }                                                                                                                    \
    extern "C" __global__ void pack_weight_##name(ConvSizes s, const T *oihw, T *packed) { pack(s, oihw, packed); }      \
    extern "C" __global__ void unpack_gradient_##name(ConvSizes s, const T *packed, T *oihw, int add)                    \
    {                                                                                                                    \
        unpack(s, packed, oihw, add);                                                                                    \
    }                                                                                                                    \
    extern "C" __global__ void transpose_weight_##name(index_t rows, index_t columns, const T *from, T *to)              \
    {                                                                                                                    \
        __shared__ T tile[32 * 33];                                                                                      \
        transpose(rows, columns, from, to, tile);                                                                        \
    }

KERNELS(float, f32)
KERNELS(double, f64)
