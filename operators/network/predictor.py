"""The predictor: any of the networks, run on patterns batch by batch.

It copies the network and prepares the copy for speed (`operators.network.cuda_graph`).
"""

import copy

import numpy as np
import torch
from torch import Tensor

from operators.arrays import Mask, Patches, Patterns, Probe, abs2, fft2
from operators.network.cuda_graph import Run, recorded
from operators.network.gaps import fill_gaps
from operators.network.interface import (
    Network,
    Predicting,
    Results,
    channels_last,
    illuminate,
    probe_tensor,
)
from operators.network.openvino import compile_layers, fast_dtype, has_openvino
from operators.patches import middle, widened

N_ROUNDED = 16  # patterns that tell how far rounding changes patches


class Predictor:
    """Turns patterns into object patches with error bars.

    A pattern gives the same patch whatever else is in its batch, but for rounding where that has another
    size, so live and offline results agree.

    Parameters
    ----------
    network : Network
        Trained; copied, so that its training may go on.
    probe : (mode, y, x) complex64
        Sum of |P|^2 over modes = mean photons per frame.
    batch_size : int
        Most patterns per run of the network.
    device : str
        Where torch runs it.
    dtype : torch.dtype, optional
        Of the convolutions: float16 on a GPU, `operators.network.openvino.fast_dtype` in OpenVINO, single
        precision elsewhere, unless given. The Fourier transforms are always in single precision.
    openvino : bool
        Run convolutions of the default network on a CPU in OpenVINO, if it is installed, torch has one
        thread, and torch is not told to compute in bfloat16: of more threads, OpenVINO's and torch's get into
        each other's way.
    mask : (ky, kx) bool, optional
        True where the detector measures, corner-origin; everywhere unless given. Its gaps are filled
        (`operators.network.gaps`): a network takes darkness for a measurement.

    Attributes
    ----------
    crop : int
        Side of the middle of a window, of which alone the network says anything.

    Raises
    ------
    ValueError
        If the probe has not the shape that the network was made for, or carries no photons, or the mask has
        another shape or no valid pixel.
    """

    def __init__(
        self,
        network: Network,
        probe: Probe,
        batch_size: int = 16,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
        openvino: bool = True,
        mask: Mask | None = None,
    ) -> None:
        n_pixels = network.n_pixels
        if probe.ndim != 3 or probe.shape[1:] != (n_pixels, n_pixels):
            raise ValueError(
                f"the network takes a probe (mode, {n_pixels}, {n_pixels}), got {probe.shape}; "
                "crop or bin the frames to the network's size, or train one for yours"
            )
        if mask is not None and not (mask.shape == probe.shape[1:] and mask.any()):
            raise ValueError(
                f"expected a mask {probe.shape[1:]} like the patterns, True where pixels are valid, got "
                f"{mask.shape} with {np.count_nonzero(mask)} valid pixels"
            )
        power = np.square(np.abs(probe)).sum((1, 2))
        if not (np.isfinite(power).all() and power.sum() > 0):
            raise ValueError(f"expected a probe with finite photons above 0, its modes have {power}")
        self.batch_size, self.crop = batch_size, network.crop
        self.photons_per_frame = float(power.sum())
        self._sigma_factor = network.sigma_factor(self.photons_per_frame)
        self._illumination = illuminate(probe_tensor(probe).to(device))
        self._network, self._device = copy.deepcopy(network).eval().to(device), torch.device(device)
        self._mask = None if mask is None or mask.all() else torch.from_numpy(mask).to(device)
        on_gpu = self._device.type == "cuda"
        self._network.optimise_for_inference(dtype or (torch.float16 if on_gpu else torch.float32))
        channels_last(self._network)
        is_single = self._network.dtype == torch.float32 and torch.get_num_threads() == 1
        if openvino and not on_gpu and is_single and has_openvino():
            compile_layers(self._network, dtype or fast_dtype(self._network))
        self._run: Run = self._eager

    def predict(self, patterns: Patterns) -> tuple[Patches, np.ndarray]:
        """Return the object patch of each pattern and its error bar.

        Parameters
        ----------
        patterns : (frame, ky, kx) float32, photons
            Corner-origin, on the host or, as CuPy's, on the GPU.

        Returns
        -------
        patches : (frame, y, x) complex64
            Each has a global phase of its own; meaningful where the probe is bright, 1 where it is dark.
        sigma : (frame, y, x) float32, rad
            Standard deviation of the phase, calibrated; that of a uniform phase where the probe is dark.

        Raises
        ------
        ValueError
            If the patterns have not the network's size.
        """
        return widened(*self.submit(patterns)(), patterns.shape[-1])

    @torch.inference_mode()
    def submit(self, patterns: Patterns) -> Results:
        """Return what gives the results of `predict`, cut to `crop`: a GPU works on them meanwhile.

        Parameters
        ----------
        patterns : (frame, ky, kx) float32, photons
            As for `predict`.

        Returns
        -------
        callable
            Waits, then returns patches, (frame, crop, crop) complex64, and sigma, (frame, crop, crop)
            float32, rad.

        Raises
        ------
        ValueError
            If the patterns have not the network's size.
        """
        n_pixels = self._network.n_pixels
        if patterns.ndim != 3 or patterns.shape[1:] != (n_pixels, n_pixels):
            raise ValueError(f"expected patterns (frame, {n_pixels}, {n_pixels}), got {patterns.shape}")
        on_gpu, shape = self._device.type == "cuda", (len(patterns), self.crop, self.crop)
        # A GPU copies into page-locked memory while it goes on.
        patches = torch.empty(shape, dtype=torch.complex64, pin_memory=on_gpu)
        sigma = torch.empty(shape, pin_memory=on_gpu)
        for start in range(0, len(patterns), self.batch_size):
            part = slice(start, start + self.batch_size)
            shares = patterns[part] / np.float32(self.photons_per_frame)
            intensities = torch.as_tensor(shares.astype(np.float32, copy=False), device=self._device)
            for whole, values in zip((patches, sigma), self._run(intensities), strict=True):
                whole[part].copy_(values, non_blocking=True)
        is_done = torch.cuda.Event() if on_gpu else None
        if is_done:
            is_done.record()

        def results() -> tuple[Patches, np.ndarray]:
            if is_done:
                is_done.synchronize()
            return patches.numpy(), sigma.numpy()

        return results

    def _eager(self, intensities: Tensor) -> tuple[Tensor, Tensor]:
        if self._mask is not None:
            intensities = fill_gaps(intensities, self._mask, self._illumination)
        prediction = self._network(intensities, self._illumination)
        sigma = prediction.log_sigma.exp() * self._sigma_factor
        # In one piece, which a GPU copies to the host without a stop.
        return middle(prediction.patches, self.crop).contiguous(), middle(sigma, self.crop).contiguous()

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run an empty batch, so that the first frames of a scan do not pay for torch's set-up.

        On a GPU the run is recorded here; without a warm-up it is launched piece by piece.
        """
        empty = np.zeros((self.batch_size, self._network.n_pixels, self._network.n_pixels), np.float32)
        self.predict(empty)
        if self._device.type == "cuda":
            self._run = recorded(self._eager, torch.from_numpy(empty).to(self._device))


def rounding_error(network: Network, predictor: Predicting, probe: Probe) -> float:
    """Return how far the patches of a predictor are from those of its network without any short cut.

    Parameters
    ----------
    network : Network
        What `predictor` was made of.
    predictor : Predicting
    probe : (mode, y, x) complex64
        As the predictor got it.

    Returns
    -------
    float
        Root mean square of the difference over that of the patches, where the probe is bright, for some
        patterns of random phases.
    """
    from scipy import ndimage  # a sixth of what the stage loads, for nothing but this

    rng = np.random.default_rng(0)
    shape = (N_ROUNDED, *probe.shape[1:])
    phase = ndimage.gaussian_filter(rng.standard_normal(shape), (0, 3, 3))
    exit_waves = probe * np.exp(1j * phase / phase.std())[:, None]
    patterns = abs2(fft2(exit_waves)).sum(axis=1).astype(np.float32)
    with torch.inference_mode():
        illumination = illuminate(probe_tensor(probe))
        intensities = torch.from_numpy(patterns / abs2(probe).sum())
        exact = copy.deepcopy(network).eval().cpu()(intensities, illumination).patches.numpy()
    exact, weights = middle(exact, predictor.crop), middle(abs2(probe).sum(axis=0), predictor.crop)
    difference = abs2(predictor.submit(patterns)()[0] - exact)
    return float(np.sqrt((weights * difference).sum() / (weights * abs2(exact)).sum()))
