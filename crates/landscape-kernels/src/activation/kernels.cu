// Relu, gelu, sums: the loops of activation.rs, one thread per element.
//
// Compiled without contraction of products and sums, so that relu and the sums have the bits of the CPU.

typedef long long index_t;

#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

#define INV_SQRT_2 0.70710678118654752440
// 1/sqrt(2 pi), the density of the normal distribution at zero.
#define DENSITY_AT_ZERO 0.39894228040143267794
// sqrt(2/pi), the slope at zero of the tanh form's argument.
#define TANH_SCALE 0.79788456080286535588
#define TANH_CUBIC 0.044715

template <typename T>
__device__ __forceinline__ void store(T *into, T value, int add)
{
    *into = add ? *into + value : value;
}

// gelu(x)/x; kind 0 is erf, 1 is tanh.
__device__ __forceinline__ double gate(int kind, double x)
{
    if (kind == 0) {
        return 0.5 * erfc(-x * INV_SQRT_2);
    }
    return 1.0 / (1.0 + exp(-2.0 * TANH_SCALE * (x + TANH_CUBIC * x * x * x)));
}

// gelu'(x).
__device__ __forceinline__ double slope(int kind, double x)
{
    double g = gate(kind, x);
    double gate_slope = kind == 0 ? exp(-0.5 * x * x) * DENSITY_AT_ZERO
                                  : 2.0 * TANH_SCALE * (1.0 + 3.0 * TANH_CUBIC * x * x) * g * (1.0 - g);
    // The product must not become 0 times infinity far out, where the gate is flat.
    return g + (gate_slope == 0.0 || fabs(x) > 1e3 ? 0.0 : x * gate_slope);
}

template <typename T>
__device__ __forceinline__ void relu_forward(index_t n, const T *x, T *y)
{
    FOR_EACH(i, n) {
        y[i] = x[i] <= (T)0 ? (T)0 : x[i];
    }
}

template <typename T>
__device__ __forceinline__ void relu_backward(index_t n, const T *y, const T *dy, T *dx, int add)
{
    FOR_EACH(i, n) {
        store(dx + i, y[i] <= (T)0 ? (T)0 : dy[i], add);
    }
}

template <typename T>
__device__ __forceinline__ void gelu_forward(index_t n, int kind, const T *x, T *y)
{
    FOR_EACH(i, n) {
        double value = (double)x[i];
        y[i] = (T)(value * gate(kind, value));
    }
}

template <typename T>
__device__ __forceinline__ void gelu_backward(index_t n, int kind, const T *x, const T *dy, T *dx, int add)
{
    FOR_EACH(i, n) {
        store(dx + i, (T)(slope(kind, (double)x[i]) * (double)dy[i]), add);
    }
}

// a or b may be y.
template <typename T>
__device__ __forceinline__ void add_forward(index_t n, const T *a, const T *b, T *y)
{
    FOR_EACH(i, n) {
        y[i] = a[i] + b[i];
    }
}

#define KERNELS(T, name)                                                                                                \
    extern "C" __global__ void relu_forward_##name(index_t n, const T *x, T *y) { relu_forward(n, x, y); }              \
    extern "C" __global__ void relu_backward_##name(index_t n, const T *y, const T *dy, T *dx, int add)                 \
    {                                                                                                                   \
        relu_backward(n, y, dy, dx, add);                                                                               \
    }                                                                                                                   \
    extern "C" __global__ void gelu_forward_##name(index_t n, int kind, const T *x, T *y)                               \
    {                                                                                                                   \
        gelu_forward(n, kind, x, y);                                                                                    \
    }                                                                                                                   \
    extern "C" __global__ void gelu_backward_##name(index_t n, int kind, const T *x, const T *dy, T *dx, int add)       \
    {                                                                                                                   \
        gelu_backward(n, kind, x, dy, dx, add);                                                                         \
    }                                                                                                                   \
    extern "C" __global__ void add_##name(index_t n, const T *a, const T *b, T *y) { add_forward(n, a, b, y); }

KERNELS(float, f32)
KERNELS(double, f64)
