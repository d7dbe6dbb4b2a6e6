// What all kernels share: what the host writes for each update, arithmetic, sums over a block.
//
// The compiler is given N_PIXELS, the side of a window, N_MODES, and TINY and OVERLAP_LIMIT of
// operators/engine/epie.py, whose update this is. Arrays are C-ordered: object (row, col), probe (mode, y, x),
// waves (frame, mode, y, x), all complex64. No header is included, so that nothing but the compiler is needed.

#define N_VALUES (N_PIXELS * N_PIXELS)
#define TO_UNITARY (1.0f / N_PIXELS)  // of a transform over N_VALUES that is not normalised

struct Steps {  // operators/engine/cuda/update.py: STEPS
    float object_step, probe_step, alpha, probe_photons;
    int n_frames, is_poisson, unused[2];
};

struct Frame {  // operators/engine/cuda/update.py: FRAME
    int slot, row, column;
    float probe_weight;
};

__device__ inline float2 plus(float2 a, float2 b) { return make_float2(a.x + b.x, a.y + b.y); }
__device__ inline float2 minus(float2 a, float2 b) { return make_float2(a.x - b.x, a.y - b.y); }
__device__ inline float2 scaled(float2 a, float b) { return make_float2(a.x * b, a.y * b); }
__device__ inline float2 times(float2 a, float2 b) {
    return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
}
__device__ inline float2 times_conj(float2 a, float2 b) {
    return make_float2(a.x * b.x + a.y * b.y, a.y * b.x - a.x * b.y);
}
__device__ inline float abs2(float2 a) { return a.x * a.x + a.y * a.y; }

__device__ inline void add(float2* sum, float2 value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    atomicAdd(sum, value);  // both halves at once
#else
    atomicAdd(&sum->x, value.x);
    atomicAdd(&sum->y, value.y);
#endif
}

// A half's bits, shifted to where a float has exponent and fraction, are too small by the difference of the
// exponents' offsets, 127 - 15, and else the same number.
__device__ inline float from_half(unsigned short bits) {
    return __uint_as_float((unsigned)bits << 13) * 5.192296858534828e33f;
}

// Element of the object that pixel p of a frame's window lies on.
__device__ inline size_t pixel_under(Frame frame, int p, int width) {
    return (size_t)(frame.row + p / N_PIXELS) * width + frame.column + p % N_PIXELS;
}

// How far the modulus `found` of a unitary far field is from where it should go, and the squared misfit.
__device__ inline float missing_modulus(float found, float measured, int is_poisson, float* error) {
    const float missing = measured - found;
    *error += missing * missing;
    return is_poisson ? 0.25f * (sqrtf(found * found + 8 * measured * measured) - 3 * found) : missing;
}

struct Add {
    __device__ float operator()(float a, float b) const { return a + b; }
};

// Of numbers that are not negative, whose bits are ordered as they are; unlike fmaxf, it keeps NaN.
struct Largest {
    __device__ float operator()(float a, float b) const {
        return __float_as_uint(a) > __float_as_uint(b) ? a : b;
    }
};

// Combines the values of all threads of a block, all of which have to call it; thread 0 gets the result.
template <class Combine>
__device__ float over_block(float value, Combine combine) {
    __shared__ float of_warp[32];
    for (int distance = 16; distance > 0; distance /= 2)
        value = combine(value, __shfl_down_sync(0xffffffffu, value, distance));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int warp = 1; warp < blockDim.x / 32; ++warp) value = combine(value, of_warp[warp]);
    return value;
}
