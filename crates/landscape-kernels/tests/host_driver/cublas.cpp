// The part of cuBLAS that the crate calls, by its definition: column-major matrices on the host, one sum after the other. What the
// library refuses (lines closer together than a matrix is high) is refused here.

#include <cstddef>

static const int SUCCESS = 0, INVALID_VALUE = 7;
#define EXPORT extern "C" __attribute__((visibility("default"))) int

static int something;

EXPORT cublasCreate_v2(void **handle)
{
    *handle = &something;
    return SUCCESS;
}
EXPORT cublasDestroy_v2(void *) { return SUCCESS; }
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

EXPORT cublasSgemm_v2(
    void *, int a_op, int b_op, int m, int n, int k, const float *alpha, const float *a, int lda, const float *b, int ldb, const float *beta,
    float *c, int ldc)
{
    return product(a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
EXPORT cublasDgemm_v2(
    void *, int a_op, int b_op, int m, int n, int k, const double *alpha, const double *a, int lda, const double *b, int ldb,
    const double *beta, double *c, int ldc)
{
    return product(a_op, b_op, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
