// Relu, gelu, pointwise functions, sums: the loops of activation.rs, one thread per element.
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

// 1/(1 + e^-x), and one minus it without the loss of digits.
__device__ __forceinline__ double sigmoid(double x, double *rest)
{
    double e = exp(-fabs(x));
    double large = 1.0 / (1.0 + e);
    double small = e * large;
    *rest = x >= 0.0 ? small : large;
    return x >= 0.0 ? large : small;
}

// NaN stays NaN.
template <typename T>
__device__ __forceinline__ T clamp(T x, T low, T high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}

// The functions of pointwise.rs by their numbers; p and q are their attributes. Exponentials are taken in double precision, all else in T
// as on the CPU.
template <typename T>
__device__ __forceinline__ T pointwise(int kind, T p, T q, double exponent, T x)
{
    double rest;
    switch (kind) {
    case 0:
        return x * (T)sigmoid((double)x, &rest);
    case 1:
        return (T)sigmoid((double)x, &rest);
    case 2:
        return x * clamp(x + (T)3, (T)0, (T)6) / (T)6;
    case 3:
        return clamp(x + (T)3, (T)0, (T)6) / (T)6;
    case 4:
        return (T)tanh((double)x);
    case 5:
        return x > (T)0 ? x : x * p;
    case 6:
        return clamp(x, p, q);
    case 7:
        return x <= (T)0 ? p * (T)expm1((double)x) : x;
    case 8:
        return x > (T)20 ? x : (T)(fmax((double)x, 0.0) + log1p(exp(-fabs((double)x))));
    case 9:
        return (T)exp((double)x);
    case 10:
        return p * x + q;
    default:
        if (exponent == 2.0) {
            return x * x;
        }
        if (exponent == 3.0) {
            return x * x * x;
        }
        if (exponent == 0.5) {
            return (T)sqrt((double)x);
        }
        if (exponent == -0.5) {
            return (T)1 / (T)sqrt((double)x);
        }
        return exponent == -1.0 ? (T)1 / x : (T)pow((double)x, exponent);
    }
}

// Its derivative times dy.
template <typename T>
__device__ __forceinline__ T pointwise_gradient(int kind, T p, T q, double exponent, T x, T dy)
{
    double s, rest;
    switch (kind) {
    case 0:
        s = sigmoid((double)x, &rest);
        return dy * (T)(s * (1.0 + (double)x * rest));
    case 1:
        s = sigmoid((double)x, &rest);
        return dy * (T)(s * rest);
    case 2:
        return x <= (T)-3 ? (T)0 : x < (T)3 ? dy * (x / (T)3 + (T)0.5) : dy;
    case 3:
        return x > (T)-3 && x < (T)3 ? dy / (T)6 : (T)0;
    case 4:
        s = exp(-2.0 * fabs((double)x));
        rest = 2.0 / (1.0 + s);
        return dy * (T)(s * rest * rest);
    case 5:
        return x > (T)0 ? dy : dy * p;
    case 6:
        return x > p && x < q ? dy : (T)0;
    case 7:
        return x <= (T)0 ? dy * (p * (T)exp((double)x)) : dy;
    case 8:
        return x > (T)20 ? dy : dy * (T)sigmoid((double)x, &rest);
    case 9:
        return dy * (T)exp((double)x);
    case 10:
        return dy * p;
    default:
        if (exponent == 2.0) {
            return dy * (p * x);
        }
        if (exponent == 3.0) {
            return dy * (p * (x * x));
        }
        if (exponent == 0.5) {
            return dy * (p / (T)sqrt((double)x));
        }
        if (exponent == -0.5) {
            return dy * (p / (x * (T)sqrt((double)x)));
        }
        if (exponent == -1.0) {
            return dy * (p / (x * x));
        }
        return exponent == 0.0 ? (T)0 : (T)((double)dy * (exponent * pow((double)x, exponent - 1.0)));
    }
}

template <typename T>
__device__ __forceinline__ void pointwise_forward(index_t n, int kind, double p, double q, const T *x, T *y)
{
    FOR_EACH(i, n) {
        y[i] = pointwise(kind, (T)p, (T)q, p, x[i]);
    }
}

template <typename T>
__device__ __forceinline__ void pointwise_backward(
    index_t n, int kind, double p, double q, const T *x, const T *dy, T *dx, int add)
{
    FOR_EACH(i, n) {
        store(dx + i, pointwise_gradient(kind, (T)p, (T)q, p, x[i], dy[i]), add);
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
    extern "C" __global__ void pointwise_forward_##name(index_t n, int kind, double p, double q, const T *x, T *y)      \
    {                                                                                                                   \
        pointwise_forward(n, kind, p, q, x, y);                                                                         \
    }                                                                                                                   \
    extern "C" __global__ void pointwise_backward_##name(                                                               \
        index_t n, int kind, double p, double q, const T *x, const T *dy, T *dx, int add)                               \
    {                                                                                                                   \
        pointwise_backward(n, kind, p, q, x, dy, dx, add);                                                              \
    }                                                                                                                   \
    extern "C" __global__ void add_##name(index_t n, const T *a, const T *b, T *y) { add_forward(n, a, b, y); }

KERNELS(float, f32)
KERNELS(double, f64)
