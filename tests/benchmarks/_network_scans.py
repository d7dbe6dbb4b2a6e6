"""What the parts of `bench network` share: refining a scan, and mosaics against the truth."""

import numpy as np

from launch.evaluate import LIT, SimulatedScan
from operators.arrays import Probe, abs2
from operators.geometry import Bounds
from operators.metrics import nrmse, remove_gauge
from operators.network_interface import Network
from operators.predict import Predictor
from operators.refinement import RefinerSnapshot
from operators.refiner import Refiner
from operators.stitch import stitch


def refined_to(refiner: Refiner, n_epochs: float) -> RefinerSnapshot:
    """Return the picture after so many epochs, full steps to the end."""
    while refiner.epoch < n_epochs:
        refiner.step()
    return refiner.snapshot()


def mosaic_error(network: Network, probe: Probe, scan: SimulatedScan) -> float:
    """Return the error `c` of a scan's mosaic without what an unknown probe leaves free.

    That is shift, ramp and scale; taken off also where the probe is known, so that both compare.
    """
    patches, sigma = Predictor(network, probe).predict(scan.patterns)
    mosaic = stitch(patches, sigma, abs2(probe).sum(axis=0), scan.corners)
    picture = mosaic.picture(Bounds(0, 0, *scan.object.shape))
    lit = picture.photons > LIT * picture.photons.max()
    object_ = np.where(lit, picture.object, np.complex64(1))
    freed = remove_gauge(object_, scan.object, scale=True, weights=lit.astype(np.float64))
    return nrmse(freed, scan.object, lit).c
