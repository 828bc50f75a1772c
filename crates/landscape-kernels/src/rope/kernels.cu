// Rotary embedding as rope.rs: a table of sines and cosines, taken in double precision, then one thread per element.

typedef long long index_t;

#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// table: cos, then direction*sin, [len, half] each.
template <typename T>
__device__ __forceinline__ void angles(index_t len, index_t half, double base, double direction, T *table)
{
    FOR_EACH(i, len * half) {
        double angle = (double)(i / half) * pow(base, -(double)(i % half) / (double)half);
        table[i] = (T)cos(angle);
        table[len * half + i] = (T)(direction * sin(angle));
    }
}

// interleaved: pairs are (2i, 2i + 1), else (i, i + half).
template <typename T>
__device__ __forceinline__ void turn(
    index_t n, index_t len, index_t heads, index_t head_dim, index_t half, int interleaved, const T *table, const T *x, T *y, int add)
{
    FOR_EACH(i, n) {
        index_t d = i % head_dim, position = i / (heads * head_dim) % len;
        T value = x[i];
        if (d < 2 * half) {
            index_t pair = interleaved ? d / 2 : d % half;
            int is_first = interleaved ? d % 2 == 0 : d < half;
            index_t distance = interleaved ? 1 : half;
            T c = table[position * half + pair], s = table[(len + position) * half + pair];
            value = is_first ? x[i] * c - x[i + distance] * s : x[i] * c + x[i - distance] * s;
        }
        y[i] = add ? y[i] + value : value;
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void rope_angles_##name(index_t len, index_t half, double base, double direction, T *table)    \
    {                                                                                                                    \
        angles(len, half, base, direction, table);                                                                       \
    }                                                                                                                    \
    extern "C" __global__ void rope_turn_##name(                                                                         \
        index_t n, index_t len, index_t heads, index_t head_dim, index_t half, int interleaved, const T *table,          \
        const T *x, T *y, int add)                                                                                       \
    {                                                                                                                    \
        turn(n, len, heads, head_dim, half, interleaved, table, x, y, add);                                              \
    }

KERNELS(float, f32)
KERNELS(double, f64)
