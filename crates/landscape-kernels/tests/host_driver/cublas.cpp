// The part of cuBLAS that the crate calls, by its definition: column-major matrices on the host, one sum after the other. What the
// library refuses (lines closer together than a matrix is high) is refused here.

#include <cstddef>
#include <cstring>
#include <vector>

static const int SUCCESS = 0, INVALID_VALUE = 7;
#define EXPORT extern "C" __attribute__((visibility("default"))) int

static int something;

EXPORT cublasCreate_v2(void **handle)
{
    *handle = &something;
    return SUCCESS;
}
EXPORT cublasDestroy_v2(void *) { return SUCCESS; }
EXPORT cublasGetVersion_v2(void *, int *version)
{
    *version = 130000;
    return SUCCESS;
}
EXPORT cublasSetStream_v2(void *, void *) { return SUCCESS; }

// op(a) is m x k, op(b) is k x n, c is m x n; operation 0 reads as it stands, 1 transposed.
template <typename T>
static int product(
    int a_op, int b_op, int m, int n, int k, const T *alpha, const T *a, int lda, const T *b, int ldb, const T *beta, T *c, int ldc)
{
    if (m < 0 || n < 0 || k < 0 || lda < (a_op ? k : m) || ldb < (b_op ? n : k) || ldc < m) {
        return INVALID_VALUE;
    }
    for (int j = 0; j < n; j++) {
        for (int i = 0; i < m; i++) {
            T sum = 0;
            for (int p = 0; p < k; p++) {
                T left = a_op ? a[(std::size_t)i * lda + p] : a[(std::size_t)p * lda + i];
                T right = b_op ? b[(std::size_t)p * ldb + j] : b[(std::size_t)j * ldb + p];
                sum += left * right;
            }
            T *into = c + (std::size_t)j * ldc + i;
            // With beta 0 what is there is not read.
            *into = *beta == 0 ? *alpha * sum : *alpha * sum + *beta * *into;
        }
    }
    return SUCCESS;
}

EXPORT cublasDgemm_v2(
    void *, int a_op, int b_op, int m, int n, int k, const double *alpha, const double *a, int lda, const double *b, int ldb,
    const double *beta, double *c, int ldc)
{
    return product(a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

// cublasGemmEx: f32 in f32 and TF32, bf16 in f32; the sums are f32.
static const int R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77;

static float of_bits(unsigned bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The numbers of an operand of `n_lines` lines, `apart` apart and `len` long, as the product sees them.
static std::vector<float> read(const void *from, int type, int compute, int n_lines, int apart, int len)
{
    std::vector<float> values((std::size_t)n_lines * apart);
    for (int line = 0; line < n_lines; line++) {
        for (int i = 0; i < len; i++) {
            std::size_t at = (std::size_t)line * apart + i;
            unsigned bits;
            if (type == R_16BF) {
                bits = (unsigned)static_cast<const unsigned short *>(from)[at] << 16;
            } else {
                std::memcpy(&bits, static_cast<const float *>(from) + at, sizeof bits);
                if (compute == COMPUTE_32F_FAST_TF32) {
                    bits = (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu;
                }
            }
            values[at] = of_bits(bits);
        }
    }
    return values;
}

EXPORT cublasGemmEx(
    void *, int a_op, int b_op, int m, int n, int k, const void *alpha, const void *a, int a_type, int lda, const void *b, int b_type, int ldb,
    const void *beta, void *c, int c_type, int ldc, int compute, int)
{
    bool good = a_type == b_type && c_type == R_32F && (a_type == R_32F || (a_type == R_16BF && compute == COMPUTE_32F));
    good = good && (compute == COMPUTE_32F || compute == COMPUTE_32F_FAST_TF32) && lda >= (a_op ? k : m) && ldb >= (b_op ? n : k);
    if (!good || m < 0 || n < 0 || k < 0) {
        return INVALID_VALUE;
    }
    std::vector<float> left = read(a, a_type, compute, a_op ? m : k, lda, a_op ? k : m);
    std::vector<float> right = read(b, b_type, compute, b_op ? k : n, ldb, b_op ? n : k);
    return product(
        a_op, b_op, m, n, k, static_cast<const float *>(alpha), left.data(), lda, right.data(), ldb, static_cast<const float *>(beta),
        static_cast<float *>(c), ldc);
}
