// The part of cuDNN that the crate calls, by its definition: NHWC images of f32, filters [out, taps, in of a group], on the host, one sum
// after the other.
//
// It is as hard to please as the library: doubles are not taken, an algorithm wants the workspace it asked for (and makes use of all of
// it), and where its rules are asked they name algorithms whose sums have no fixed order; running one of those is an error here.
// With HOST_CUDNN=stubborn the rules name nothing, and what it said to take is not supported when it is to run. Where the device may have a
// fault (HOST_DRIVER_FAULT) it takes nothing back.

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

static const int SUCCESS = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000;
static const int FLOAT = 0, NHWC = 1, CROSS_CORRELATION = 1, DEFAULT_MATH = 0, FMA_MATH = 3;
static const std::size_t WORKSPACE_BYTES = 100;
#define EXPORT extern "C" __attribute__((visibility("default"))) int

// Said when the program ends, so that a test sees that it was called at all.
static struct Calls {
    int forward = 0, data = 0, filter = 0;
    ~Calls() { std::fprintf(stderr, "host cuDNN: %d forward, %d data, %d filter\n", forward, data, filter); }
} calls;

struct Tensor {
    int format, type, n, c, h, w;
};
struct Filter {
    int type, format, k, c, h, w;
};
struct Convolution {
    int padding[2], stride[2], dilation[2], mode, type, groups, math;
};
// cudnnConvolutionFwdAlgoPerfStruct and its like.
struct Performance {
    int algorithm, status;
    float time;
    std::size_t memory;
    int determinism, math, reserved[3];
};

extern "C" __attribute__((visibility("default"))) std::size_t cudnnGetVersion() { return 92100; }
static int handle;
EXPORT cudnnCreate(void **out)
{
    *out = &handle;
    return SUCCESS;
}
EXPORT cudnnDestroy(void *) { return std::getenv("HOST_DRIVER_FAULT") ? EXECUTION_FAILED : SUCCESS; }
EXPORT cudnnSetStream(void *, void *) { return SUCCESS; }

EXPORT cudnnCreateTensorDescriptor(Tensor **out)
{
    *out = new Tensor();
    return SUCCESS;
}
EXPORT cudnnSetTensor4dDescriptor(Tensor *t, int format, int type, int n, int c, int h, int w)
{
    *t = {format, type, n, c, h, w};
    return n > 0 && c > 0 && h > 0 && w > 0 ? SUCCESS : BAD_PARAM;
}
EXPORT cudnnDestroyTensorDescriptor(Tensor *t)
{
    delete t;
    return SUCCESS;
}
EXPORT cudnnCreateFilterDescriptor(Filter **out)
{
    *out = new Filter();
    return SUCCESS;
}
EXPORT cudnnSetFilter4dDescriptor(Filter *f, int type, int format, int k, int c, int h, int w)
{
    *f = {type, format, k, c, h, w};
    return k > 0 && c > 0 && h > 0 && w > 0 ? SUCCESS : BAD_PARAM;
}
EXPORT cudnnDestroyFilterDescriptor(Filter *f)
{
    delete f;
    return SUCCESS;
}
EXPORT cudnnCreateConvolutionDescriptor(Convolution **out)
{
    *out = new Convolution();
    (*out)->groups = 1;
    return SUCCESS;
}
EXPORT cudnnSetConvolution2dDescriptor(
    Convolution *c, int pad_h, int pad_w, int stride_h, int stride_w, int dilation_h, int dilation_w, int mode, int type)
{
    int groups = c->groups, math = c->math;
    *c = {{pad_h, pad_w}, {stride_h, stride_w}, {dilation_h, dilation_w}, mode, type, groups, math};
    return SUCCESS;
}
EXPORT cudnnSetConvolutionGroupCount(Convolution *c, int groups)
{
    c->groups = groups;
    return SUCCESS;
}
EXPORT cudnnSetConvolutionMathType(Convolution *c, int math)
{
    c->math = math;
    return SUCCESS;
}
EXPORT cudnnDestroyConvolutionDescriptor(Convolution *c)
{
    delete c;
    return SUCCESS;
}

static int check(const Tensor *x, const Filter *f, const Convolution *c, const Tensor *y)
{
    if (x->type != FLOAT || y->type != FLOAT || f->type != FLOAT || c->type != FLOAT) {
        return NOT_SUPPORTED;
    }
    const int in[2] = {x->h, x->w}, out[2] = {y->h, y->w}, kernel[2] = {f->h, f->w};
    bool good = x->format == NHWC && y->format == NHWC && f->format == NHWC && c->mode == CROSS_CORRELATION;
    good = good && (c->math == FMA_MATH || c->math == DEFAULT_MATH) && x->n == y->n && y->c == f->k && x->c == f->c * c->groups && f->k % c->groups == 0;
    for (int d = 0; d < 2; d++) {
        good = good && out[d] == (in[d] + 2 * c->padding[d] - c->dilation[d] * (kernel[d] - 1) - 1) / c->stride[d] + 1;
    }
    return good ? SUCCESS : BAD_PARAM;
}

// Calls each(in, filter, out) for every product of the convolution, by their places in memory.
template <typename Each>
static void for_products(const Tensor *x, const Filter *f, const Convolution *c, const Tensor *y, Each each)
{
    int out_group = f->k / c->groups;
    for (int n = 0; n < y->n; n++) {
        for (int i = 0; i < y->h; i++) {
            for (int j = 0; j < y->w; j++) {
                for (int k = 0; k < f->k; k++) {
                    for (int r = 0; r < f->h; r++) {
                        for (int s = 0; s < f->w; s++) {
                            int row = i * c->stride[0] + r * c->dilation[0] - c->padding[0];
                            int column = j * c->stride[1] + s * c->dilation[1] - c->padding[1];
                            if (row < 0 || row >= x->h || column < 0 || column >= x->w) {
                                continue;
                            }
                            std::size_t in = (((std::size_t)n * x->h + row) * x->w + column) * x->c + k / out_group * f->c;
                            std::size_t filter = (((std::size_t)k * f->h + r) * f->w + s) * f->c;
                            std::size_t out = (((std::size_t)n * y->h + i) * y->w + j) * y->c + k;
                            for (int channel = 0; channel < f->c; channel++) {
                                each(in + channel, filter + channel, out);
                            }
                        }
                    }
                }
            }
        }
    }
}

// A number as the product reads it: the default lets it be rounded to TF32.
static float read(const Convolution *c, float value)
{
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    bits = c->math == DEFAULT_MATH ? (bits + 0xfffu + ((bits >> 13) & 1u)) & ~0x1fffu : bits;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// With beta 0 what is there is not read.
static void begin(float *values, std::size_t n, float beta)
{
    for (std::size_t i = 0; i < n; i++) {
        values[i] = beta == 0 ? 0 : beta * values[i];
    }
}

static bool stubborn()
{
    const char *how = std::getenv("HOST_CUDNN");
    return how && std::strcmp(how, "stubborn") == 0;
}

static int use_workspace(void *workspace, std::size_t n_bytes)
{
    if (stubborn()) {
        return NOT_SUPPORTED + 2;
    }
    if (!workspace || n_bytes < WORKSPACE_BYTES) {
        return BAD_PARAM;
    }
    std::memset(workspace, 0xee, WORKSPACE_BYTES);
    return SUCCESS;
}

static int answer(int status, int algorithm, int asked, int *n, Performance *all)
{
    *n = asked > 0 && status == SUCCESS && !stubborn() ? 1 : 0;
    if (*n == 1) {
        all[0] = {algorithm, SUCCESS, 1.0f, WORKSPACE_BYTES, 0, FMA_MATH, {0, 0, 0}};
    }
    return status;
}

EXPORT cudnnGetConvolutionForwardAlgorithm_v7(
    void *, Tensor *x, Filter *f, Convolution *c, Tensor *y, int asked, int *n, Performance *all)
{
    return answer(check(x, f, c, y), 1, asked, n, all);
}
EXPORT cudnnGetConvolutionBackwardDataAlgorithm_v7(
    void *, Filter *f, Tensor *dy, Convolution *c, Tensor *dx, int asked, int *n, Performance *all)
{
    return answer(check(dx, f, c, dy), 0, asked, n, all);
}
EXPORT cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    void *, Tensor *x, Tensor *dy, Convolution *c, Filter *df, int asked, int *n, Performance *all)
{
    return answer(check(x, df, c, dy), 3, asked, n, all);
}
EXPORT cudnnGetConvolutionForwardWorkspaceSize(void *, Tensor *x, Filter *f, Convolution *c, Tensor *y, int, std::size_t *n_bytes)
{
    *n_bytes = WORKSPACE_BYTES;
    return check(x, f, c, y);
}
EXPORT cudnnGetConvolutionBackwardDataWorkspaceSize(
    void *, Filter *f, Tensor *dy, Convolution *c, Tensor *dx, int, std::size_t *n_bytes)
{
    *n_bytes = WORKSPACE_BYTES;
    return check(dx, f, c, dy);
}
EXPORT cudnnGetConvolutionBackwardFilterWorkspaceSize(
    void *, Tensor *x, Tensor *dy, Convolution *c, Filter *df, int, std::size_t *n_bytes)
{
    *n_bytes = WORKSPACE_BYTES;
    return check(x, df, c, dy);
}

EXPORT cudnnConvolutionForward(
    void *, const float *alpha, Tensor *x_is, const float *x, Filter *f_is, const float *f, Convolution *c, int, void *workspace,
    std::size_t n_bytes, const float *beta, Tensor *y_is, float *y)
{
    int status = check(x_is, f_is, c, y_is);
    status = status != SUCCESS ? status : use_workspace(workspace, n_bytes);
    if (status == SUCCESS) {
        calls.forward++;
        begin(y, (std::size_t)y_is->n * y_is->c * y_is->h * y_is->w, *beta);
        for_products(x_is, f_is, c, y_is, [&](std::size_t in, std::size_t filter, std::size_t out) { y[out] += *alpha * read(c, x[in]) * read(c, f[filter]); });
    }
    return status;
}
EXPORT cudnnConvolutionBackwardData(
    void *, const float *alpha, Filter *f_is, const float *f, Tensor *dy_is, const float *dy, Convolution *c, int algorithm,
    void *workspace, std::size_t n_bytes, const float *beta, Tensor *dx_is, float *dx)
{
    int status = check(dx_is, f_is, c, dy_is);
    status = status != SUCCESS ? status : use_workspace(workspace, n_bytes);
    status = status == SUCCESS && algorithm == 0 ? EXECUTION_FAILED : status;
    if (status == SUCCESS) {
        calls.data++;
        begin(dx, (std::size_t)dx_is->n * dx_is->c * dx_is->h * dx_is->w, *beta);
        for_products(
            dx_is, f_is, c, dy_is, [&](std::size_t in, std::size_t filter, std::size_t out) { dx[in] += *alpha * read(c, dy[out]) * read(c, f[filter]); });
    }
    return status;
}
EXPORT cudnnConvolutionBackwardFilter(
    void *, const float *alpha, Tensor *x_is, const float *x, Tensor *dy_is, const float *dy, Convolution *c, int algorithm,
    void *workspace, std::size_t n_bytes, const float *beta, Filter *df_is, float *df)
{
    int status = check(x_is, df_is, c, dy_is);
    status = status != SUCCESS ? status : use_workspace(workspace, n_bytes);
    status = status == SUCCESS && (algorithm == 0 || algorithm == 3) ? EXECUTION_FAILED : status;
    if (status == SUCCESS) {
        calls.filter++;
        begin(df, (std::size_t)df_is->k * df_is->h * df_is->w * df_is->c, *beta);
        for_products(
            x_is, df_is, c, dy_is, [&](std::size_t in, std::size_t filter, std::size_t out) { df[filter] += *alpha * read(c, x[in]) * read(c, dy[out]); });
    }
    return status;
}
