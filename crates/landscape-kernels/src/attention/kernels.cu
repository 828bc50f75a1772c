// Attention as attention.rs, by definition: the weights of some examples stand in memory, [n, heads, q_len, kv_len].
//
// Products have one thread per element of the result, rows of weights one warp each (blocks of 32 x 8 threads).

typedef long long index_t;

#define WARP 32
#define ALL 0xffffffffu
#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

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

// The sizes of an attention; n is the number of examples at hand.
struct Shape {
    index_t n, q_len, kv_len, heads, kv_heads;
};

// scores[b][h][i][j] = a[b][i][h]*b[b][j][h'] over `dim` numbers: scores of queries and keys, and slopes of outputs and values.
template <typename T>
__device__ __forceinline__ void scores(Shape s, index_t dim, const T *left, const T *right, T *into)
{
    FOR_EACH(at, s.n * s.heads * s.q_len * s.kv_len) {
        index_t j = at % s.kv_len, i = at / s.kv_len % s.q_len;
        index_t h = at / s.kv_len / s.q_len % s.heads, b = at / s.kv_len / s.q_len / s.heads;
        const T *row = left + ((b * s.q_len + i) * s.heads + h) * dim;
        const T *column = right + ((b * s.kv_len + j) * s.kv_heads + h / (s.heads / s.kv_heads)) * dim;
        T sum = (T)0;
        for (index_t d = 0; d < dim; d++) {
            sum += row[d] * column[d];
        }
        into[at] = sum;
    }
}

// Rows of scores become softmax(scale*scores), zero behind what query i sees.
template <typename T>
__device__ __forceinline__ void weigh(Shape s, int causal, double scale, T *weights)
{
    index_t n_rows = s.n * s.heads * s.q_len;
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        T *w = weights + row * s.kv_len;
        index_t i = row % s.q_len;
        index_t n_seen = causal && i + 1 < s.kv_len ? i + 1 : s.kv_len;
        double top = -1.0 / 0.0;
        for (index_t j = threadIdx.x; j < n_seen; j += WARP) {
            double value = scale * (double)w[j];
            top = value > top ? value : top;
        }
        top = largest_of_warp(top);
        double sum = 0.0;
        for (index_t j = threadIdx.x; j < n_seen; j += WARP) {
            sum += exp(scale * (double)w[j] - top);
        }
        sum = sum_of_warp(sum);
        for (index_t j = threadIdx.x; j < s.kv_len; j += WARP) {
            w[j] = j < n_seen ? (T)(exp(scale * (double)w[j] - top) / sum) : (T)0;
        }
    }
}

// Slopes of weights become those of scores: scale*weight*(slope - sum weight*slope).
template <typename T>
__device__ __forceinline__ void score_gradients(Shape s, double scale, const T *weights, T *slopes)
{
    index_t n_rows = s.n * s.heads * s.q_len;
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        const T *w = weights + row * s.kv_len;
        T *slope = slopes + row * s.kv_len;
        double mean = 0.0;
        for (index_t j = threadIdx.x; j < s.kv_len; j += WARP) {
            mean += (double)w[j] * (double)slope[j];
        }
        mean = sum_of_warp(mean);
        for (index_t j = threadIdx.x; j < s.kv_len; j += WARP) {
            slope[j] = (T)(scale * (double)w[j] * ((double)slope[j] - mean));
        }
    }
}

// into[b][i][h][d] = sum over j of weights[b][h][i][j]*right[b][j][h'][d].
template <typename T>
__device__ __forceinline__ void over_keys(Shape s, index_t dim, const T *weights, const T *right, T *into)
{
    FOR_EACH(at, s.n * s.q_len * s.heads * dim) {
        index_t d = at % dim, h = at / dim % s.heads, i = at / dim / s.heads % s.q_len, b = at / dim / s.heads / s.q_len;
        const T *row = weights + ((b * s.heads + h) * s.q_len + i) * s.kv_len;
        const T *column = right + (b * s.kv_len * s.kv_heads + h / (s.heads / s.kv_heads)) * dim + d;
        T sum = (T)0;
        for (index_t j = 0; j < s.kv_len; j++) {
            sum += row[j] * column[j * s.kv_heads * dim];
        }
        into[at] = sum;
    }
}

// into[b][j][g][d] = sum over the heads h of g and over i of weights[b][h][i][j]*left[b][i][h][d].
template <typename T>
__device__ __forceinline__ void over_queries(Shape s, index_t dim, const T *weights, const T *left, T *into)
{
    index_t group = s.heads / s.kv_heads;
    FOR_EACH(at, s.n * s.kv_len * s.kv_heads * dim) {
        index_t d = at % dim, g = at / dim % s.kv_heads, j = at / dim / s.kv_heads % s.kv_len;
        index_t b = at / dim / s.kv_heads / s.kv_len;
        T sum = (T)0;
        for (index_t h = g * group; h < (g + 1) * group; h++) {
            const T *column = weights + (b * s.heads + h) * s.q_len * s.kv_len + j;
            const T *row = left + (b * s.q_len * s.heads + h) * dim + d;
            for (index_t i = 0; i < s.q_len; i++) {
                sum += column[i * s.kv_len] * row[i * s.heads * dim];
            }
        }
        into[at] = sum;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void attention_scores_##name(Shape s, index_t dim, const T *left, const T *right, T *into)     \
    {                                                                                                                    \
        scores(s, dim, left, right, into);                                                                               \
    }                                                                                                                    \
    extern "C" __global__ void attention_weigh_##name(Shape s, int causal, double scale, T *weights)                     \
    {                                                                                                                    \
        weigh(s, causal, scale, weights);                                                                                \
    }                                                                                                                    \
    extern "C" __global__ void attention_score_gradients_##name(Shape s, double scale, const T *weights, T *slopes)      \
    {                                                                                                                    \
        score_gradients(s, scale, weights, slopes);                                                                      \
    }                                                                                                                    \
    extern "C" __global__ void attention_over_keys_##name(                                                               \
        Shape s, index_t dim, const T *weights, const T *right, T *into)                                                 \
    {                                                                                                                    \
        over_keys(s, dim, weights, right, into);                                                                         \
    }                                                                                                                    \
    extern "C" __global__ void attention_over_queries_##name(                                                            \
        Shape s, index_t dim, const T *weights, const T *left, T *into)                                                  \
    {                                                                                                                    \
        over_queries(s, dim, weights, left, into);                                                                       \
    }

KERNELS(float, f32)
KERNELS(double, f64)
