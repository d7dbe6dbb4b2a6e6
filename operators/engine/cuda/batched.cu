// The update between whose kernels cuFFT transforms the waves of all frames. One thread is one pixel of a
// window; blocks along y are frames, or a few frames each. Frames from steps->n_frames on are not there.

#define FRAMES_PER_BLOCK 8  // whose probe corrections are added in registers

extern "C" __global__ void exit_waves(const Steps* steps, const Frame* frames, const float2* object,
                                      int width, const float2* probe, float2* waves) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x, frame = blockIdx.y;
    if (p >= N_VALUES) return;
    float2 under = make_float2(0, 0);  // frames that are not there are transformed all the same
    if (frame < steps->n_frames) under = object[pixel_under(frames[frame], p, width)];
    for (int mode = 0; mode < N_MODES; ++mode)
        waves[((size_t)frame * N_MODES + mode) * N_VALUES + p] = times(under, probe[mode * N_VALUES + p]);
}

// Replaces far fields that are not normalised by their correction, scaled for an inverse that is not either.
extern "C" __global__ void modulus_correction(const Steps* steps, const Frame* frames,
                                              const unsigned short* amplitudes, const bool* valid,
                                              float2* waves, float* errors) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x, frame = blockIdx.y;
    if (frame >= steps->n_frames) return;
    float error = 0;
    if (p < N_VALUES) {
        float2* wave = waves + (size_t)frame * N_MODES * N_VALUES + p;
        float intensity = 0;
        for (int mode = 0; mode < N_MODES; ++mode) intensity += abs2(wave[mode * N_VALUES]);
        const float found = sqrtf(intensity) * TO_UNITARY;
        const float measured = from_half(amplitudes[(size_t)frames[frame].slot * N_VALUES + p]);
        float missing = 0;
        if (valid[p]) missing = missing_modulus(found, measured, steps->is_poisson, &error);
        const float factor = missing / (found + TINY) * (TO_UNITARY * TO_UNITARY);
        for (int mode = 0; mode < N_MODES; ++mode)
            wave[mode * N_VALUES] = scaled(wave[mode * N_VALUES], factor);
    }
    error = over_block(error, Add());
    if (threadIdx.x == 0) atomicAdd(&errors[frame], error);
}

// Adds what the corrections of the exit waves say about object and probe to the sums of both.
extern "C" __global__ void add_corrections(const Steps* steps, const Frame* frames, const float2* object,
                                           int width, const float2* probe, const float* intensity,
                                           const float2* waves, float2* object_sums, float* light,
                                           float2* probe_sums, float* transmission) {
    const int p = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * FRAMES_PER_BLOCK;
    const int last = min(first + FRAMES_PER_BLOCK, steps->n_frames);
    if (p >= N_VALUES || first >= last) return;
    float2 here[N_MODES], to_probe[N_MODES];
    for (int mode = 0; mode < N_MODES; ++mode) {
        here[mode] = probe[mode * N_VALUES + p];
        to_probe[mode] = make_float2(0, 0);
    }
    float transmitted = 0;
    for (int frame = first; frame < last; ++frame) {
        const float weight = frames[frame].probe_weight;
        const size_t at = pixel_under(frames[frame], p, width);
        const float2 under = object[at];
        float2 to_object = make_float2(0, 0);
        for (int mode = 0; mode < N_MODES; ++mode) {
            const float2 correction = waves[((size_t)frame * N_MODES + mode) * N_VALUES + p];
            to_object = plus(to_object, times_conj(correction, here[mode]));
            to_probe[mode] = plus(to_probe[mode], scaled(times_conj(correction, under), weight));
        }
        add(&object_sums[at], to_object);
        atomicAdd(&light[at], intensity[p]);
        transmitted += weight * abs2(under);
    }
    if (steps->probe_step == 0) return;
    for (int mode = 0; mode < N_MODES; ++mode) add(&probe_sums[mode * N_VALUES + p], to_probe[mode]);
    atomicAdd(&transmission[p], transmitted);
}
