// Rows of a table looked up by number, and the gradient of the table, as embedding.rs.
//
// A token that names no row is never read from: its row of the result is NaN, and its gradient goes nowhere.

typedef long long index_t;

#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// The row that a token names, or -1.
template <typename T>
__device__ __forceinline__ index_t row_of(T token, index_t num_embeddings)
{
    double value = (double)token;
    if (!(value >= 0.0 && value < (double)num_embeddings)) {
        return -1;
    }
    index_t row = (index_t)value;
    return (double)row == value ? row : -1;
}

template <typename T>
__device__ __forceinline__ void embedding_forward(
    index_t n, index_t num_embeddings, index_t embedding_dim, const T *tokens, const T *weight, T *y)
{
    FOR_EACH(i, n) {
        index_t row = row_of(tokens[i / embedding_dim], num_embeddings);
        y[i] = row < 0 ? (T)nan("") : weight[row * embedding_dim + i % embedding_dim];
    }
}

// next[i]: the next position of the same token, n_tokens after its last; first[i]: whether no position before i has it.
template <typename T>
__device__ __forceinline__ void embedding_chains(index_t n_tokens, index_t num_embeddings, const T *tokens, unsigned *next, unsigned *first)
{
    FOR_EACH(i, n_tokens) {
        index_t row = row_of(tokens[i], num_embeddings), other = i + 1, before = i - 1;
        while (other < n_tokens && tokens[other] != tokens[i]) {
            other++;
        }
        while (before >= 0 && tokens[before] != tokens[i]) {
            before--;
        }
        next[i] = (unsigned)other;
        first[i] = row >= 0 && before < 0 ? 1u : 0u;
    }
}

// Adds the sum of dy over each chain, in its order, to the row that it is of.
template <typename T>
__device__ __forceinline__ void embedding_backward(
    index_t n_tokens, index_t embedding_dim, const T *tokens, const unsigned *next, const unsigned *first, const T *dy, T *dweight)
{
    FOR_EACH(i, n_tokens * embedding_dim) {
        index_t position = i / embedding_dim, j = i % embedding_dim;
        if (first[position]) {
            double sum = 0.0;
            for (index_t at = position; at < n_tokens; at = next[at]) {
                sum += (double)dy[at * embedding_dim + j];
            }
            dweight[(index_t)tokens[position] * embedding_dim + j] += (T)sum;
        }
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void embedding_forward_##name(                                                                 \
        index_t n, index_t num_embeddings, index_t embedding_dim, const T *tokens, const T *weight, T *y)                \
    {                                                                                                                    \
        embedding_forward(n, num_embeddings, embedding_dim, tokens, weight, y);                                          \
    }                                                                                                                    \
    extern "C" __global__ void embedding_chains_##name(                                                                  \
        index_t n_tokens, index_t num_embeddings, const T *tokens, unsigned *next, unsigned *first)                      \
    {                                                                                                                    \
        embedding_chains(n_tokens, num_embeddings, tokens, next, first);                                                 \
    }                                                                                                                    \
    extern "C" __global__ void embedding_backward_##name(                                                                \
        index_t n_tokens, index_t embedding_dim, const T *tokens, const unsigned *next, const unsigned *first,           \
        const T *dy, T *dweight)                                                                                         \
    {                                                                                                                    \
        embedding_backward(n_tokens, embedding_dim, tokens, next, first, dy, dweight);                                   \
    }

KERNELS(float, f32)
KERNELS(double, f64)
