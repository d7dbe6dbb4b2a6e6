"""How the positions of a recorded scan lie on its frames, and where the beam meets the detector."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from launch.offline.examine import examined
from launch.offline.recorded import RecordedScan
from launch.offline.task import ReconstructOptions, Task, task_of
from operators.arrays import Mask
from operators.engine.backends import get_host_backend
from operators.geometry import Geometry
from operators.optics.preprocess import Preprocess, marked
from operators.orientation.centre import beam_centre
from operators.orientation.judge import LEAST_FRAMES, Orientation, find_orientation
from operators.orientation.turn import Turn

MOST_FRAMES = 384
_FRAMES_OF_CENTRE = 64
_LEAST_SIDE, _STEP = 32, 16  # of the square that is tried, pixels of a pattern
_LIGHT = 0.98  # share that lies in it


@dataclass(frozen=True, slots=True, kw_only=True)
class OrientedScan:
    """What was found.

    Attributes
    ----------
    orientation : Orientation
    centre : (float, float)
        Detector pixel (row, column) of the direct beam.
    assumed_centre : (int, int)
        The one that patterns are cut out around now.
    frame_shape : (int, int)
        Rows and columns of the detector.
    frame_numbers : (int, int)
        First and last frame looked at.
    geometry : Geometry
        Of the patterns that were tried: the middle of those that are configured.
    """

    orientation: Orientation
    centre: tuple[float, float]
    assumed_centre: tuple[int, int]
    frame_shape: tuple[int, int]
    frame_numbers: tuple[int, int]
    geometry: Geometry

    @property
    def whole_centre(self) -> tuple[int, int]:
        """The pixel nearest to the beam, or the assumed one where that is as good."""
        return _nearest(self.centre) if self.is_off_centre else self.assumed_centre

    @property
    def is_off_centre(self) -> bool:
        """Whether another pixel is nearer to the beam than the assumed one and its neighbours."""
        return bool(max(abs(np.subtract(self.centre, self.assumed_centre))) > 1)


def orient(
    scan: RecordedScan,
    *,
    first: int = 0,
    n_frames: int = MOST_FRAMES,
    threads: int = 1,
    on_step: Callable[[int, int], None] = lambda step, n_steps: None,
) -> OrientedScan:
    """Returns how the positions of a scan lie on its frames.

    Parameters
    ----------
    scan : RecordedScan
    first : int
        Frames with a position that are passed over.
    n_frames : int
        That are looked at, from there on.
    threads : int
    on_step : callable
        Told how many short reconstructions are done, and of how many.

    Raises
    ------
    ValueError
        If too few frames have a position, or nothing can come of them; see `launch.offline.examine`.
    """
    preprocess = scan.preprocess() if scan.preprocess else None
    task = task_of(scan, ReconstructOptions(probe="data"), preprocess)
    used = task.used[first : first + n_frames]
    if len(used) < LEAST_FRAMES:
        raise ValueError(
            f"{scan.called}: {len(used)} frames with a position from the {first}. on, wanted at least "
            f"{LEAST_FRAMES}"
        )
    task = examined(replace(task, used=used), tells=False)
    frame = _MeanFrame(task)
    centre, assumed = beam_centre(frame.counts, frame.valid), frame.assumed_centre
    prepare = frame.cut(_nearest(centre))
    geometry = replace(task.geometry, n_pixels=prepare.n_pixels)
    numbers = scan.frame_numbers[task.used]
    return OrientedScan(
        orientation=find_orientation(
            prepare(np.asarray(scan.frames[task.used])),
            geometry.to_pixels(scan.positions_m[task.used]),
            mask=prepare.mask,
            probe=scan.probe,
            run_update=get_host_backend(threads).update,
            on_step=on_step,
        ),
        centre=centre,
        assumed_centre=assumed,
        frame_shape=task.preprocess.frame_shape,
        frame_numbers=(int(numbers[0]), int(numbers[-1])),
        geometry=geometry,
    )


def in_words(turn: Turn) -> str:
    """Returns what has to be done to positions as recorded."""
    axes = [axis for axis, sign in zip("yx", turn.signs, strict=True) if sign < 0]
    done = ["y and x exchanged"] * turn.exchanged
    done += [f"sign{'s' * (len(axes) > 1)} of {' and '.join(axes)} turned"] if axes else []
    return ", then ".join(done) or "as recorded"


class _MeanFrame:
    """The mean of some frames of a task, of the whole detector, and how patterns are cut out of it."""

    def __init__(self, task: Task) -> None:
        self._preprocess = task.preprocess
        some = task.used[:: max(1, len(task.used) // _FRAMES_OF_CENTRE)]
        frames = np.asarray(task.scan.frames[some])
        counts = np.nan_to_num(frames.astype(np.float64), posinf=0.0, neginf=0.0)
        marks = marked(frames)
        if marks is not None:
            counts[marks] = 0
        self.counts: NDArray[np.float64] = np.maximum(counts.mean(axis=0) - task.preprocess.background, 0)
        self.valid = self._valid()
        if marks is not None:
            self.valid &= ~marks.all(axis=0)

    @property
    def assumed_centre(self) -> tuple[int, int]:
        """Where patterns have their zero frequency now, a detector pixel."""
        rows, columns = self.counts.shape
        return self._preprocess.centre or (rows // 2, columns // 2)

    def cut(self, centre: tuple[int, int]) -> Preprocess:
        """Returns the preparation of patterns about another centre, as small as the light in them allows.

        Raises
        ------
        ValueError
            If there is no room for a pattern.
        """
        binning = self._preprocess.binning
        room = min(*centre, *np.subtract(self.counts.shape, centre)) // binning
        most = min(self._preprocess.n_pixels, 2 * int(room))
        if most < _LEAST_SIDE:
            raise ValueError(
                f"the beam meets the detector at row {centre[0]}, column {centre[1]} of {self.counts.shape}: "
                f"there are not {_LEAST_SIDE} pixels around it"
            )
        lit = np.where(self.valid, self.counts, 0)
        for side in [*range(_LEAST_SIDE, most, _STEP), most]:
            half = side * binning // 2
            box = tuple(slice(middle - half, middle - half + side * binning) for middle in centre)
            if lit[box].sum() >= _LIGHT * lit.sum():
                break
        return replace(self._preprocess, centre=centre, n_pixels=side, valid_pixels=self.valid)

    def _valid(self) -> Mask:
        """Return which detector pixels have a value: outside of the patterns all of which nothing is said."""
        given = self._preprocess.valid_pixels
        if given is not None and given.shape == self.counts.shape:
            return given
        inside = replace(self._preprocess, valid_pixels=None).valid_in_frame()
        return self._preprocess.valid_in_frame() | ~inside


def _nearest(centre: tuple[float, float]) -> tuple[int, int]:
    row, column = (int(np.floor(middle + 0.5)) for middle in centre)
    return row, column
