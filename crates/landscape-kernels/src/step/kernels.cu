// Optimiser steps on rows, alone or with the spread of the gradient: the twins of step/sgd.rs and step/adam.rs, with their bits.
//
// One launch serves many tensors, as in blend/kernels.cu. Each number is read once and written once.

typedef long long index_t;

#define N_POINTERS 5
#define MAX_PIECES 128
#define THREADS 256
#define VECTORS 4

// What one launch works on: pieces, runs of numbers that lie apart in memory.
struct StepTable {
    // Of each piece: gradient, point (null where there is none), row, first memory, second memory (null where there is none).
    unsigned long long pointer[MAX_PIECES * N_POINTERS];
    index_t len[MAX_PIECES];
    unsigned first_block[MAX_PIECES + 1];
    unsigned n_pieces;
};

// The gradient of the row: g as it is, or c (g + decay w).
struct Gradient {
    double c, decay;
    int spread;
};

struct Sgd {
    Gradient gradient;
    double lr, momentum, keep, weight_decay;
    int nesterov, first;
};

struct Adam {
    Gradient gradient;
    double coupled_decay, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, root_of_correction, eps;
};

template <typename T>
struct alignas(16) Pack {
    T at[16 / sizeof(T)];
};

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }

template <typename T>
__device__ __forceinline__ T form(const Gradient &gradient, T g, T w, bool has_point)
{
    if (!gradient.spread) {
        return g;
    }
    T c = (T)gradient.c;
    // As in spread: a coefficient of zero gives exactly zero.
    if (c == (T)0) {
        return (T)0;
    }
    return has_point ? c * (g + (T)gradient.decay * w) : c * g;
}

template <typename T>
__device__ __forceinline__ void update(const Sgd &rule, T g, T &theta, T &velocity, T &)
{
    T weight_decay = (T)rule.weight_decay, momentum = (T)rule.momentum;
    if (weight_decay != (T)0) {
        g = g + weight_decay * theta;
    }
    T direction = g;
    if (momentum != (T)0) {
        velocity = rule.first ? g : velocity * momentum + (T)rule.keep * g;
        direction = rule.nesterov ? g + momentum * velocity : velocity;
    }
    theta = theta - (T)rule.lr * direction;
}

template <typename T>
__device__ __forceinline__ void update(const Adam &rule, T g, T &theta, T &m, T &v)
{
    T w = (T)rule.shrink * theta;
    if ((T)rule.coupled_decay != (T)0) {
        g = g + (T)rule.coupled_decay * w;
    }
    // Which end the interpolation starts from: exact at both.
    T first = (T)rule.one_minus_beta1 < (T)0.5 ? m + (T)rule.one_minus_beta1 * (g - m) : g - (T)rule.beta1 * (g - m);
    T second = v * (T)rule.beta2 + (T)rule.one_minus_beta2 * g * g;
    m = first;
    v = second;
    theta = w - (T)rule.step_size * first / (root(second) / (T)rule.root_of_correction + (T)rule.eps);
}

template <typename T, typename Rule>
__device__ __forceinline__ void step(const StepTable &table, const Rule &rule)
{
    const int N = 16 / sizeof(T);
    unsigned low = 0, high = table.n_pieces;
    while (high - low > 1) {
        unsigned middle = (low + high) / 2;
        if (table.first_block[middle] <= blockIdx.x) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const unsigned long long *pointer = table.pointer + low * N_POINTERS;
    const T *g = (const T *)pointer[0], *w = (const T *)pointer[1];
    T *theta = (T *)pointer[2], *first = (T *)pointer[3], *second = (T *)pointer[4];
    index_t start = (index_t)(blockIdx.x - table.first_block[low]) * (THREADS * VECTORS * N);
    index_t end = start + THREADS * VECTORS * N;
    end = end < table.len[low] ? end : table.len[low];
    bool aligned = ((pointer[0] | pointer[1] | pointer[2] | pointer[3] | pointer[4]) % 16) == 0;
    index_t packed = aligned ? end - (end - start) % N : start;
    for (index_t i = start + threadIdx.x * N; i < packed; i += THREADS * N) {
        Pack<T> g_at = *(const Pack<T> *)(g + i), w_at = {}, theta_at = *(const Pack<T> *)(theta + i), first_at = {}, second_at = {};
        if (w) {
            w_at = *(const Pack<T> *)(w + i);
        }
        if (first) {
            first_at = *(const Pack<T> *)(first + i);
        }
        if (second) {
            second_at = *(const Pack<T> *)(second + i);
        }
        for (int j = 0; j < N; j++) {
            T gradient = form(rule.gradient, g_at.at[j], w_at.at[j], w != nullptr);
            update(rule, gradient, theta_at.at[j], first_at.at[j], second_at.at[j]);
        }
        *(Pack<T> *)(theta + i) = theta_at;
        if (first) {
            *(Pack<T> *)(first + i) = first_at;
        }
        if (second) {
            *(Pack<T> *)(second + i) = second_at;
        }
    }
    for (index_t i = packed + threadIdx.x; i < end; i += THREADS) {
        T row = theta[i], m = first ? first[i] : (T)0, v = second ? second[i] : (T)0;
        update(rule, form(rule.gradient, g[i], w ? w[i] : (T)0, w != nullptr), row, m, v);
        theta[i] = row;
        if (first) {
            first[i] = m;
        }
        if (second) {
            second[i] = v;
        }
    }
}

#define KERNELS(T, name)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(THREADS) sgd_##name(const __grid_constant__ StepTable table, const Sgd rule)   \
    {                                                                                                                           \
        step<T>(table, rule);                                                                                                   \
    }                                                                                                                           \
    extern "C" __global__ void __launch_bounds__(THREADS) adam_##name(const __grid_constant__ StepTable table, const Adam rule) \
    {                                                                                                                           \
        step<T>(table, rule);                                                                                                   \
    }

KERNELS(float, f32)
KERNELS(double, f64)
