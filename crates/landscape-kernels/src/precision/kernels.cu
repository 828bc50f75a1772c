// Rounding to bf16 as precision.rs: to nearest, ties to even; NaN stays NaN; what is below the smallest normal number becomes zero of
// its sign.

typedef long long index_t;

#define FOR_EACH(i, n) \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (index_t)gridDim.x * blockDim.x)

__device__ __forceinline__ unsigned round_to_bits(float value)
{
    unsigned bits = __float_as_uint(value);
    if ((bits & 0x7f800000u) == 0) {
        return bits & 0x80000000u;
    }
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (bits | 0x00400000u) & 0xffff0000u;
    }
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
}

// Rounded, and still f32.
extern "C" __global__ void round_to_bf16_f32(index_t n, const float *values, float *out)
{
    FOR_EACH(i, n) { out[i] = __uint_as_float(round_to_bits(values[i])); }
}

// Rounded, in two bytes.
extern "C" __global__ void to_bf16_f32(index_t n, const float *values, unsigned short *out)
{
    FOR_EACH(i, n) { out[i] = (unsigned short)(round_to_bits(values[i]) >> 16); }
}
