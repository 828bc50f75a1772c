// Losses as loss.rs: one warp per row, everything in double precision; rows are then added up in a fixed order by one block.
//
// Between the two, a row is its loss and a flag. `sums` is {loss, wrong rows, 1 + row of a label that is no class, that label, rows that
// counted}, added to.

typedef long long index_t;

#define BLOCK 256
#define WARP 32
#define ALL 0xffffffffu
#define WRONG 1u
#define BAD_LABEL 2u
#define NOT_COUNTED 4u
// The label of a row that counts nothing.
#define IGNORED 0xffffffffu

// The sum over a warp, by a fixed tree; every lane gets it.
__device__ __forceinline__ double sum_of_warp(double value)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(ALL, value, step);
    }
    return value;
}

// labels: classes of the rows; gradient (may be null) = scale*(softmax - onehot). Blocks are 32 x 8 threads.
template <typename T>
__device__ __forceinline__ void cross_entropy(
    index_t n_rows, index_t n_classes, const T *logits, const unsigned *labels, T *gradient, double scale, double *losses, unsigned *flags)
{
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        const T *z = logits + row * n_classes;
        index_t label = labels[row];
        if (labels[row] == IGNORED) {
            if (gradient) {
                for (index_t j = threadIdx.x; j < n_classes; j += WARP) {
                    gradient[row * n_classes + j] = (T)0;
                }
            }
            if (threadIdx.x == 0) {
                losses[row] = 0.0;
                flags[row] = NOT_COUNTED;
            }
            continue;
        }
        if (label >= n_classes) {
            if (threadIdx.x == 0) {
                losses[row] = 0.0;
                flags[row] = BAD_LABEL | NOT_COUNTED;
            }
            continue;
        }
        // The first of the largest: larger wins, of equals the one further left. NaN wins nothing, as on the CPU, except at
        // place 0, where nothing compares larger either; the row is then lost whatever the rest.
        index_t best = threadIdx.x;
        int has_nan = 0;
        for (index_t j = threadIdx.x; j < n_classes; j += WARP) {
            has_nan |= z[j] != z[j];
            if (z[j] > z[best] || (z[best] != z[best] && z[j] == z[j])) {
                best = j;
            }
        }
        double top = best < n_classes ? (double)z[best] : 0.0;
        int is_there = best < n_classes && top == top;
        for (int step = WARP / 2; step > 0; step /= 2) {
            double other_top = __shfl_xor_sync(ALL, top, step);
            index_t other = __shfl_xor_sync(ALL, best, step);
            int other_is_there = __shfl_xor_sync(ALL, is_there, step);
            has_nan |= __shfl_xor_sync(ALL, has_nan, step);
            if (other_is_there && (!is_there || other_top > top || (other_top == top && other < best))) {
                top = other_top;
                best = other;
                is_there = 1;
            }
        }
        double sum = 0.0;
        for (index_t j = threadIdx.x; j < n_classes; j += WARP) {
            sum += exp((double)z[j] - top);
        }
        sum = sum_of_warp(sum);
        if (gradient) {
            for (index_t j = threadIdx.x; j < n_classes; j += WARP) {
                double p = exp((double)z[j] - top) / sum;
                gradient[row * n_classes + j] = (T)(scale * (j == label ? p - 1.0 : p));
            }
        }
        if (threadIdx.x == 0) {
            losses[row] = log(sum) - ((double)z[label] - top);
            flags[row] = has_nan || best != label ? WRONG : 0u;
        }
    }
}

// Mean over the outputs of a row; gradient (may be null) = scale*2(y - t)/m.
template <typename T>
__device__ __forceinline__ void squared_error(
    index_t n_rows, index_t n_outputs, const T *outputs, const T *targets, T *gradient, double scale, double *losses, unsigned *flags)
{
    double m = (double)n_outputs;
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        double sum = 0.0;
        for (index_t j = threadIdx.x; j < n_outputs; j += WARP) {
            index_t at = row * n_outputs + j;
            double d = (double)outputs[at] - (double)targets[at];
            sum += d * d;
            if (gradient) {
                gradient[at] = (T)(scale * 2.0 * d / m);
            }
        }
        sum = sum_of_warp(sum);
        if (threadIdx.x == 0) {
            losses[row] = sum / m;
            flags[row] = 0u;
        }
    }
}

// Mean over the outputs of a row; gradient (may be null) = scale*(sigmoid(z) - t)/m.
template <typename T>
__device__ __forceinline__ void binary_cross_entropy(
    index_t n_rows, index_t n_outputs, const T *logits, const T *targets, T *gradient, double scale, double *losses, unsigned *flags)
{
    double m = (double)n_outputs;
    for (index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y; row < n_rows; row += (index_t)gridDim.x * blockDim.y) {
        double sum = 0.0, wrong = 0.0;
        for (index_t j = threadIdx.x; j < n_outputs; j += WARP) {
            index_t at = row * n_outputs + j;
            double z = (double)logits[at], t = (double)targets[at];
            double e = exp(-fabs(z));
            sum += fmax(z, 0.0) - z * t + log1p(e);
            wrong += z != z || (z > 0.0) != (t > 0.5) ? 1.0 : 0.0;
            if (gradient) {
                gradient[at] = (T)(scale * ((z >= 0.0 ? 1.0 / (1.0 + e) : e / (1.0 + e)) - t) / m);
            }
        }
        sum = sum_of_warp(sum);
        wrong = sum_of_warp(wrong);
        if (threadIdx.x == 0) {
            losses[row] = sum / m;
            flags[row] = wrong > 0.0 ? WRONG : 0u;
        }
    }
}

// One block of 256 threads: each adds every 256th row, then a tree. labels may be null where no flag tells of a bad one.
extern "C" __global__ void loss_sums(
    index_t n_rows, const double *losses, const unsigned *flags, const unsigned *labels, double *sums)
{
    __shared__ double loss[BLOCK];
    __shared__ double wrong[BLOCK];
    __shared__ double counted[BLOCK];
    __shared__ index_t bad[BLOCK];
    int at = threadIdx.x;
    loss[at] = 0.0;
    wrong[at] = 0.0;
    counted[at] = 0.0;
    bad[at] = n_rows;
    for (index_t row = at; row < n_rows; row += BLOCK) {
        loss[at] += losses[row];
        wrong[at] += flags[row] & WRONG ? 1.0 : 0.0;
        counted[at] += flags[row] & NOT_COUNTED ? 0.0 : 1.0;
        if (flags[row] & BAD_LABEL && row < bad[at]) {
            bad[at] = row;
        }
    }
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (at < half) {
            loss[at] += loss[at + half];
            wrong[at] += wrong[at + half];
            counted[at] += counted[at + half];
            bad[at] = bad[at + half] < bad[at] ? bad[at + half] : bad[at];
        }
        __syncthreads();
    }
    if (at == 0) {
        sums[0] += loss[0];
        sums[1] += wrong[0];
        sums[4] += counted[0];
        // The first bad label since the sums were set to zero is the one that is told.
        if (bad[0] < n_rows && sums[2] == 0.0) {
            sums[2] = (double)(bad[0] + 1);
            sums[3] = (double)labels[bad[0]];
        }
    }
}

#define KERNELS(T, name)                                                                                                 \
    extern "C" __global__ void cross_entropy_##name(                                                                     \
        index_t n_rows, index_t n_classes, const T *logits, const unsigned *labels, T *gradient, double scale,           \
        double *losses, unsigned *flags)                                                                                 \
    {                                                                                                                    \
        cross_entropy(n_rows, n_classes, logits, labels, gradient, scale, losses, flags);                                \
    }                                                                                                                    \
    extern "C" __global__ void squared_error_##name(                                                                     \
        index_t n_rows, index_t n_outputs, const T *outputs, const T *targets, T *gradient, double scale,                \
        double *losses, unsigned *flags)                                                                                 \
    {                                                                                                                    \
        squared_error(n_rows, n_outputs, outputs, targets, gradient, scale, losses, flags);                              \
    }                                                                                                                    \
    extern "C" __global__ void binary_cross_entropy_##name(                                                              \
        index_t n_rows, index_t n_outputs, const T *logits, const T *targets, T *gradient, double scale,                 \
        double *losses, unsigned *flags)                                                                                 \
    {                                                                                                                    \
        binary_cross_entropy(n_rows, n_outputs, logits, targets, gradient, scale, losses, flags);                        \
    }

KERNELS(float, f32)
KERNELS(double, f64)
