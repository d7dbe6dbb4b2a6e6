// Before and after the corrections of all frames are summed: what both ways of summing them need.

// The numbers of one update that are single: zero before it, squared moduli and so never negative.
struct Peaks {  // operators/engine/cuda/update.py: N_PEAKS
    float light, transmission, power, unused;
};

__device__ inline void raise(float* largest, float value) {
    atomicMax(reinterpret_cast<unsigned*>(largest), __float_as_uint(value));
}

extern "C" __global__ void probe_intensity(const float2* probe, float* intensity, Peaks* peaks) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x;
    float total = 0;
    if (p < N_VALUES) {
        for (int mode = 0; mode < N_MODES; ++mode) total += abs2(probe[mode * N_VALUES + p]);
        intensity[p] = total;
    }
    total = over_block(total, Largest());
    if (threadIdx.x == 0) raise(&peaks->light, total);
}

// Moves the object under all windows and leaves zero sums behind. Where windows overlap, the first thread to
// take the light of a pixel moves it: the others find none.
extern "C" __global__ void move_object(const Steps* steps, const Frame* frames, const Peaks* peaks, int width,
                                       float2* object_sums, float* light, float2* object) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x, frame = blockIdx.y;
    if (p >= N_VALUES || frame >= steps->n_frames) return;
    const size_t at = pixel_under(frames[frame], p, width);
    if (light[at] == 0) return;
    const float taken = atomicExch(&light[at], 0.0f);
    if (taken == 0) return;
    const float alpha = steps->alpha, limited = fmaxf(taken / OVERLAP_LIMIT, peaks->light);
    const float factor = steps->object_step / (alpha * limited + (1 - alpha) * taken);
    object[at] = plus(object[at], scaled(object_sums[at], factor));
    object_sums[at] = make_float2(0, 0);
}

extern "C" __global__ void largest_transmission(const float* transmission, Peaks* peaks) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x;
    const float largest = over_block(p < N_VALUES ? transmission[p] : 0.0f, Largest());
    if (threadIdx.x == 0) raise(&peaks->transmission, largest);
}

extern "C" __global__ void move_probe(const Steps* steps, const float2* probe_sums, const float* transmission,
                                      Peaks* peaks, float2* probe) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x;
    float power = 0;
    if (p < N_VALUES) {
        const float alpha = steps->alpha;
        const float weight = (1 - alpha) * transmission[p] + alpha * peaks->transmission + TINY;
        for (int mode = 0; mode < N_MODES; ++mode) {
            const int at = mode * N_VALUES + p;
            probe[at] = plus(probe[at], scaled(probe_sums[at], steps->probe_step / weight));
            power += abs2(probe[at]);
        }
    }
    power = over_block(power, Add());
    if (threadIdx.x == 0) atomicAdd(&peaks->power, power);
}

extern "C" __global__ void scale_probe(const Steps* steps, const Peaks* peaks, float2* probe) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= N_VALUES) return;
    const float factor = sqrtf(steps->probe_photons / peaks->power);
    for (int mode = 0; mode < N_MODES; ++mode)
        probe[mode * N_VALUES + p] = scaled(probe[mode * N_VALUES + p], factor);
}
