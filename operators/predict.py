"""The predictor: any of the networks, run on patterns in batches of one size.

Separate from the networks because it is what those call who only use one: the inference stage and the
evaluation. It copies the network and prepares the copy for speed.
"""

import copy

import numpy as np
import torch

from operators.arrays import Patches, Patterns, Probe
from operators.network_interface import Network, channels_last, illuminate


class Predictor:
    """Turns patterns into object patches with error bars, at a fixed cost per batch.

    Every call is padded to whole batches of one size, so a pattern gives the same patch to the last bit
    whatever else is in its batch, and live and offline results agree.

    Parameters
    ----------
    network : Network
        Trained; copied, so that its training may go on.
    probe : (mode, y, x) complex64
        Sum of |P|^2 over modes = mean photons per frame. The network is given the strongest mode; the flux of
        all of them normalises the patterns.
    batch_size : int
        Patterns per run of the network.
    device : str
        Where torch runs it.
    dtype : torch.dtype
        Of the convolutions; the Fourier transforms are always in single precision.

    Raises
    ------
    ValueError
        If the probe has not the shape that the network was made for, or carries no photons.
    """

    def __init__(
        self,
        network: Network,
        probe: Probe,
        batch_size: int = 16,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        n_pixels = network.n_pixels
        if probe.ndim != 3 or probe.shape[1:] != (n_pixels, n_pixels):
            raise ValueError(
                f"the network takes a probe (mode, {n_pixels}, {n_pixels}), got {probe.shape}; "
                "crop or bin the frames to the network's size, or train one for yours"
            )
        power = np.square(np.abs(probe)).sum((1, 2))
        if not (np.isfinite(power).all() and power.sum() > 0):
            raise ValueError(f"expected a probe with finite photons above 0, its modes have {power}")
        self.batch_size = batch_size
        self.photons_per_frame = float(power.sum())
        self._network = copy.deepcopy(network).eval().to(device)
        self._network.optimise_for_inference(dtype)
        channels_last(self._network)
        strongest = np.ascontiguousarray(probe[power.argmax()], np.complex64)
        self._illumination = illuminate(torch.from_numpy(strongest).to(device))
        self._device = device

    @torch.inference_mode()
    def predict(self, patterns: Patterns) -> tuple[Patches, np.ndarray]:
        """Return the object patch of each pattern and its error bar.

        Parameters
        ----------
        patterns : (frame, ky, kx) float32, photons
            Corner-origin.

        Returns
        -------
        patches : (frame, y, x) complex64
            Each has a global phase of its own; meaningful where the probe is bright.
        sigma : (frame, y, x) float32, rad
            Standard deviation of the phase, calibrated; that of a uniform phase where the probe is dark.

        Raises
        ------
        ValueError
            If the patterns have not the network's size.
        """
        n_pixels = self._network.n_pixels
        if patterns.ndim != 3 or patterns.shape[1:] != (n_pixels, n_pixels):
            raise ValueError(f"expected patterns (frame, {n_pixels}, {n_pixels}), got {patterns.shape}")
        patches = np.empty(patterns.shape, np.complex64)
        sigma = np.empty(patterns.shape, np.float32)
        batch = np.zeros((self.batch_size, n_pixels, n_pixels), np.float32)
        for start in range(0, len(patterns), self.batch_size):
            frames = slice(start, start + self.batch_size)
            n_frames = len(patterns[frames])
            batch[:n_frames] = patterns[frames]
            batch[n_frames:] = 0
            batch /= self.photons_per_frame
            prediction = self._network(torch.from_numpy(batch).to(self._device), self._illumination)
            patches[frames] = prediction.patches[:n_frames].cpu().numpy()
            sigma[frames] = prediction.log_sigma[:n_frames].exp().cpu().numpy()
        sigma *= float(self._network.sigma_scale)
        return patches, sigma

    def warm_up(self) -> None:
        """Run one empty batch, so that the first frames of a scan do not pay for torch's set-up."""
        self.predict(np.zeros((1, *self._illumination.probe.shape[1:]), np.float32))
