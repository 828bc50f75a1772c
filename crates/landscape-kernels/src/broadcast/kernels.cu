// Sums and products with one operand repeated, and their gradients, as broadcast.rs.

typedef long long index_t;

#define MAX_AXES 8
#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

// Axes, outermost first, and by how much two arrays move along each.
struct BroadcastAxes {
    index_t n_axes;
    index_t sizes[MAX_AXES];
    index_t first[MAX_AXES];
    index_t second[MAX_AXES];
};

__device__ __forceinline__ void places(const BroadcastAxes &axes, index_t i, index_t *first, index_t *second)
{
    *first = 0;
    *second = 0;
    for (index_t axis = axes.n_axes - 1; axis >= 0; axis--) {
        index_t index = i % axes.sizes[axis];
        i /= axes.sizes[axis];
        *first += index * axes.first[axis];
        *second += index * axes.second[axis];
    }
}

// op 0 adds, 1 multiplies.
template <typename T>
__device__ __forceinline__ void broadcast_forward(index_t n, int op, const BroadcastAxes &axes, const T *a, const T *b, T *y)
{
    FOR_EACH(i, n) {
        index_t from_a, from_b;
        places(axes, i, &from_a, &from_b);
        y[i] = op == 0 ? a[from_a] + b[from_b] : a[from_a] * b[from_b];
    }
}

// Nothing is repeated: dx = dy*other, other may be null for 1. The axes walk over dx with the places of `other` second.
template <typename T>
__device__ __forceinline__ void broadcast_products(
    index_t n, const BroadcastAxes &axes, const T *dy, const T *other, T *dx, int add)
{
    FOR_EACH(i, n) {
        index_t unused, from;
        places(axes, i, &unused, &from);
        T value = other ? dy[i] * other[from] : dy[i];
        dx[i] = add ? dx[i] + value : value;
    }
}

// dx = sum of dy*other over `repeated`, in double precision; both tables have the places of dy first and of `other` second. A block of
// 32 x 8 threads for 32 sums: eight interleaved parts each, then a tree.
template <typename T>
__device__ __forceinline__ void broadcast_sums(
    index_t n, index_t n_repeated, const BroadcastAxes &kept, const BroadcastAxes &repeated, const T *dy, const T *other, T *dx, int add,
    double (*sums)[32])
{
    for (index_t start = (index_t)blockIdx.x * 32; start < n; start += (index_t)gridDim.x * 32) {
        index_t i = start + threadIdx.x;
        double sum = 0.0;
        if (i < n) {
            index_t from_dy, from_other;
            places(kept, i, &from_dy, &from_other);
            for (index_t k = threadIdx.y; k < n_repeated; k += 8) {
                index_t more_dy, more_other;
                places(repeated, k, &more_dy, &more_other);
                double value = (double)dy[from_dy + more_dy];
                sum += other ? value * (double)other[from_other + more_other] : value;
            }
        }
        sums[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        for (int half = 4; half > 0; half /= 2) {
            if ((int)threadIdx.y < half) {
                sums[threadIdx.y][threadIdx.x] += sums[threadIdx.y + half][threadIdx.x];
            }
            __syncthreads();
        }
        if (i < n && threadIdx.y == 0) {
            T value = (T)sums[0][threadIdx.x];
            dx[i] = add ? dx[i] + value : value;
        }
        __syncthreads();
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void broadcast_forward_##name(                                                                 \
        index_t n, int op, BroadcastAxes axes, const T *a, const T *b, T *y)                                             \
    {                                                                                                                    \
        broadcast_forward(n, op, axes, a, b, y);                                                                         \
    }                                                                                                                    \
    extern "C" __global__ void broadcast_products_##name(                                                                \
        index_t n, BroadcastAxes axes, const T *dy, const T *other, T *dx, int add)                                      \
    {                                                                                                                    \
        broadcast_products(n, axes, dy, other, dx, add);                                                                 \
    }                                                                                                                    \
    extern "C" __global__ void broadcast_sums_##name(                                                                    \
        index_t n, index_t n_repeated, BroadcastAxes kept, BroadcastAxes repeated, const T *dy, const T *other, T *dx,   \
        int add)                                                                                                         \
    {                                                                                                                    \
        __shared__ double sums[8][32];                                                                                   \
        broadcast_sums(n, n_repeated, kept, repeated, dy, other, dx, add, sums);                                         \
    }

KERNELS(float, f32)
KERNELS(double, f64)
