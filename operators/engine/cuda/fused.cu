// From object and probe to the sums of their corrections in one kernel, for 128 x 128 pixels and one mode.
// One block is one frame, whose wave stays in registers and shared memory.
//
// A line of 128 points is transformed by 8 threads, its parts, of 16 values each. With n = part + 8 j and
// k = k1 + 16 k2, a part transforms its 16 j to k1, turns them by exp(-2 pi i part k1 / 128), and, after an
// exchange, transforms over the 8 parts of two k1 (part and part + 8) to k2. The value of k lies at point
// k2 + 8 k1 of the line, where the inverse, which takes the same way back, looks for it: nothing is sorted.
// Threads of a warp work on neighbouring lines, so that neither rows nor columns of the tile, whose pitch is
// odd, meet in a bank, and the object is read and written along its rows.

#if N_PIXELS == 128 && N_MODES == 1

#define N_PARTS 8
#define N_FUSED_THREADS (N_PIXELS * N_PARTS)
#define PITCH (N_PIXELS + 1)
#define HALVES_PITCH (N_PIXELS + 2)  // an odd number of banks
#define NOT_VALID 0xbc00u            // the half -1: no amplitude is negative

#define EACH(i, n) _Pragma("unroll") for (int i = 0; i < n; ++i)

// Times exp(SIGN i pi / 2).
template <int SIGN>
__device__ inline float2 turned(float2 a) {
    return SIGN < 0 ? make_float2(a.y, -a.x) : make_float2(-a.y, a.x);
}

// Times exp(SIGN 2 pi i m / 16), m known to the compiler.
template <int SIGN>
__device__ inline float2 turned_by(float2 a, int m) {
    const float cosines[10] = {1.0f, 0.92387953f, 0.70710678f, 0.38268343f, 0.0f,
                               -0.38268343f, -0.70710678f, -0.92387953f, -1.0f, -0.92387953f};
    const float sines[10] = {0.0f, 0.38268343f, 0.70710678f, 0.92387953f, 1.0f,
                             0.92387953f, 0.70710678f, 0.38268343f, 0.0f, -0.38268343f};
    return m == 0 ? a : times(a, make_float2(cosines[m], SIGN * sines[m]));
}

template <int SIGN>
__device__ inline void transform4(float2& a, float2& b, float2& c, float2& d) {
    const float2 even = plus(a, c), odd = minus(a, c), sum = plus(b, d), difference = turned<SIGN>(minus(b, d));
    a = plus(even, sum);
    b = plus(odd, difference);
    c = minus(even, sum);
    d = minus(odd, difference);
}

template <int SIGN>
__device__ inline void transform8(float2* v) {
    transform4<SIGN>(v[0], v[2], v[4], v[6]);
    transform4<SIGN>(v[1], v[3], v[5], v[7]);
    float2 result[8];
    EACH(k, 4) {
        const float2 odd = turned_by<SIGN>(v[2 * k + 1], 2 * k);
        result[k] = plus(v[2 * k], odd);
        result[k + 4] = minus(v[2 * k], odd);
    }
    EACH(k, 8) v[k] = result[k];
}

template <int SIGN>
__device__ inline void transform16(float2* v) {
    EACH(n, 4) transform4<SIGN>(v[n], v[n + 4], v[n + 8], v[n + 12]);
    float2 result[16];
    EACH(k, 4) {
        float2 a = v[4 * k], b = turned_by<SIGN>(v[4 * k + 1], k), c = turned_by<SIGN>(v[4 * k + 2], 2 * k),
               d = turned_by<SIGN>(v[4 * k + 3], 3 * k);
        transform4<SIGN>(a, b, c, d);
        result[k] = a;
        result[k + 4] = b;
        result[k + 8] = c;
        result[k + 12] = d;
    }
    EACH(k, 16) v[k] = result[k];
}

// One of the 128 lines of the tile, and one of its 8 parts.
struct Line {
    float2* points;
    int stride, part;
    const float2* turns;  // [k1][part], exp(-2 pi i k1 part / 128)

    __device__ float2& at(int point) const { return points[point * stride]; }

    // From v[j] at n = part + 8 j to v[8 h + k2] at k = part + 8 h + 16 k2. Waits for the block once.
    __device__ void forward(float2* v) const {
        transform16<-1>(v);
        EACH(k1, 16) at(part + 8 * k1) = times(v[k1], turns[8 * k1 + part]);
        __syncthreads();
        EACH(h, 2) {
            EACH(s, 8) v[8 * h + s] = at(s + 8 * (part + 8 * h));
            transform8<-1>(v + 8 * h);
        }
    }

    // The way back, not normalised.
    __device__ void inverse(float2* v) const {
        EACH(h, 2) {
            transform8<1>(v + 8 * h);
            EACH(s, 8) at(s + 8 * (part + 8 * h)) = times_conj(v[8 * h + s], turns[8 * (part + 8 * h) + s]);
        }
        __syncthreads();
        EACH(k1, 16) v[k1] = at(part + 8 * k1);
        transform16<1>(v);
    }

    __device__ void write_spectrum(const float2* v) const {
        EACH(h, 2) EACH(k2, 8) at(k2 + 8 * (part + 8 * h)) = v[8 * h + k2];
    }

    __device__ void read_spectrum(float2* v) const {
        EACH(h, 2) EACH(k2, 8) v[8 * h + k2] = at(k2 + 8 * (part + 8 * h));
    }
};

// Amplitudes with rows where the transform along columns leaves them.
__device__ inline void load_amplitudes(const unsigned short* measured, const bool* valid, unsigned short* halves) {
    for (int i = threadIdx.x; i < N_VALUES; i += N_FUSED_THREADS) {
        const int ky = i / N_PIXELS, point = ky / 16 + 8 * (ky % 16);
        halves[point * HALVES_PITCH + i % N_PIXELS] = valid[i] ? measured[i] : NOT_VALID;
    }
}

// Replaces the spectrum of one row by its correction and returns the misfit; halves are that row's.
__device__ inline float correct_modulus(float2* v, int part, const unsigned short* halves, int is_poisson) {
    float error = 0;
    EACH(h, 2) EACH(k2, 8) {
        float2& wave = v[8 * h + k2];
        const float found = sqrtf(abs2(wave)) * TO_UNITARY;
        const unsigned short bits = halves[part + 8 * h + 16 * k2];
        float missing = 0;
        if (bits != NOT_VALID) missing = missing_modulus(found, from_half(bits), is_poisson, &error);
        wave = scaled(wave, missing / (found + TINY) * (TO_UNITARY * TO_UNITARY));
    }
    return error;
}

extern "C" __global__ void __launch_bounds__(N_FUSED_THREADS, 1)
    fused_corrections(const Steps* steps, const Frame* frames, const unsigned short* amplitudes,
                      const bool* valid, const float2* object, int width, const float2* probe,
                      const float* intensity, float2* object_sums, float* light, float2* probe_sums,
                      float* transmission, float* errors) {
    extern __shared__ float2 tile[];  // operators/engine/cuda/update.py: FUSED_SHARED_BYTES
    float2* turns = tile + N_PIXELS * PITCH;
    unsigned short* halves = reinterpret_cast<unsigned short*>(turns + N_PIXELS);
    if (blockIdx.x >= steps->n_frames) return;
    const Frame frame = frames[blockIdx.x];
    const int line = threadIdx.x % N_PIXELS, part = threadIdx.x / N_PIXELS;
    const Line column = {tile + line, PITCH, part, turns}, row = {tile + line * PITCH, 1, part, turns};
    float2 v[16];

    EACH(j, 16) {
        const int p = threadIdx.x + N_FUSED_THREADS * j;  // row part + 8 j, column line
        v[j] = times(object[pixel_under(frame, p, width)], probe[p]);
    }
    load_amplitudes(amplitudes + (size_t)frame.slot * N_VALUES, valid, halves);
    if (part == 0) sincospif(-(line / 8) * (line % 8) / 64.0f, &turns[line].y, &turns[line].x);
    __syncthreads();

    column.forward(v);
    column.write_spectrum(v);
    __syncthreads();
    EACH(j, 16) v[j] = row.at(part + 8 * j);
    row.forward(v);
    float error = correct_modulus(v, part, halves + line * HALVES_PITCH, steps->is_poisson);
    row.inverse(v);
    EACH(j, 16) row.at(part + 8 * j) = v[j];
    error = over_block(error, Add());  // waits for the block
    if (threadIdx.x == 0) errors[blockIdx.x] = error;
    column.read_spectrum(v);
    column.inverse(v);

    // through the tile, whose points of this thread nobody else looks at: a loop needs fewer registers
    EACH(j, 16) column.at(part + 8 * j) = v[j];
    const float weight = steps->probe_step == 0 ? 0 : frame.probe_weight;
    for (int p = threadIdx.x; p < N_VALUES; p += N_FUSED_THREADS) {
        const size_t at = pixel_under(frame, p, width);
        const float2 correction = tile[p / N_PIXELS * PITCH + p % N_PIXELS];
        add(&object_sums[at], times_conj(correction, probe[p]));
        atomicAdd(&light[at], intensity[p]);
        if (weight == 0) continue;
        const float2 under = object[at];
        add(&probe_sums[p], scaled(times_conj(correction, under), weight));
        atomicAdd(&transmission[p], weight * abs2(under));
    }
}

#endif
