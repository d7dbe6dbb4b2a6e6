"""What refinement does when it goes wrong: back to the last good state, with smaller steps."""

import logging

import numpy as np

from operators.arrays import Object, Probe, array_module
from operators.engine.canvas import Canvas
from operators.engine.frame_store import FrameStore
from operators.geometry import Bounds

logger = logging.getLogger(__name__)

_DIVERGED = 1.5  # times the best residual of the same frames; noise alone stays within a few per cent
_HEALTHY = 1.1


class Recovery:
    """The residual at the end of every epoch, and the state to go back to when it says that all went wrong.

    Attributes
    ----------
    good : GoodState
    error_history : list of float
        The amplitude error at the end of every epoch that was kept.
    n_divergences : int
    """

    def __init__(self) -> None:
        self.good = GoodState()
        self.error_history: list[float] = []
        self.n_divergences = 0

    @property
    def step_factor(self) -> float:
        """Share of a step that is still taken."""
        return 0.5**self.n_divergences

    def keeps(self, frames: FrameStore, canvas: Canvas, probe: Probe, epoch: float) -> bool:
        """End an epoch: whether its state is kept; if not, object and probe are the last good ones again.

        It looks at the residuals, the only read-back of an epoch.
        """
        growth = frames.error_growth()
        if growth < _DIVERGED:
            self.error_history.append(frames.error())
            if growth < _HEALTHY:
                self.good.keep(canvas, probe, epoch)
            return True
        logger.info(
            "refinement diverged at epoch %.1f: residual %.3g times its best; "
            "back to the state of epoch %.1f, steps halved",
            epoch,
            growth,
            self.good.epoch,
        )
        self.good.give_back(canvas, probe)
        frames.forget_growth()
        self.n_divergences += 1
        return False


class GoodState:
    """The object and the probe to go back to when refinement diverges; without an object a transparent one.

    Attributes
    ----------
    probe : (mode, y, x) complex64
    epoch : float
        At which it was good.
    """

    def __init__(self) -> None:
        self.probe: Probe = np.zeros((0, 0, 0), np.complex64)
        self.epoch = 0.0
        self._object: tuple[Object, Bounds] | None = None

    def keep(self, canvas: Canvas, probe: Probe, epoch: float) -> None:
        """Note what is good now."""
        if self._object is None or self._object[1] != canvas.bounds:
            self._object = None  # before there is a second one
            self._object = canvas.object.copy(), canvas.bounds
        else:
            self._object[0][...] = canvas.object
        self.probe, self.epoch = probe.copy(), epoch

    def give_back(self, canvas: Canvas, probe: Probe) -> None:
        """Write it to a canvas, which may have grown since, and to the probe."""
        canvas.object[~array_module(canvas.object).isfinite(canvas.object)] = 1
        if self._object is None:
            canvas.object[...] = 1
        else:
            object_, bounds = self._object
            canvas.object[bounds.slices_in(canvas.bounds)] = object_
        probe[...] = self.probe
