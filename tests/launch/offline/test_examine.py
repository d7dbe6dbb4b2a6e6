"""What nothing can come of is refused before the work begins; what is doubtful is said."""

from dataclasses import replace

import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.offline.examine import examined
from launch.offline.recorded import RecordedScan
from launch.offline.task import ReconstructOptions, task_of

N_FRAMES = 12


@pytest.fixture(scope="module")
def scan() -> RecordedScan:
    simulated = simulate_scan(Simulation(n_rows=3, n_columns=4))
    return RecordedScan(
        frames=simulated.frames,
        frame_numbers=np.arange(100, 100 + N_FRAMES),
        positions_m=simulated.positions_m,
        geometry=simulated.geometry,
        probe=simulated.nominal_probe,
        mask=None,
        name="scan",
    )


def with_value(frames, value, where) -> np.ndarray:
    changed = frames.astype(np.float32)
    changed[where] = value
    return changed


def test_a_good_scan_is_left_as_it_is_and_nothing_is_said(scan, caplog):
    task = task_of(scan, ReconstructOptions())
    assert examined(task) is task
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda scan: {"positions_m": scan.positions_m[:1].repeat(N_FRAMES, 0)},
            "all 12 positions are the same",
        ),
        (lambda scan: {"positions_m": scan.positions_m * 1e6}, "a millionth as far it would fit"),
        (lambda scan: {"positions_m": scan.positions_m * 1e6}, "an object of .* PB"),
        (lambda scan: {"positions_m": scan.positions_m * 10}, "neighbouring positions are .* apart"),
        (lambda scan: {"geometry": replace(scan.geometry, energy_ev=9.0)}, "did you mean 9 keV"),
        (lambda scan: {"probe": scan.probe * 0}, "the probe holds only zeros"),
        (lambda scan: {"probe": scan.probe[:, :32, :32]}, "the probe has 32 x 32 pixels, patterns have 64"),
        (lambda scan: {"frames": scan.frames * 0}, "no photon on the valid pixels of 12 frames"),
        (lambda scan: {"frames": -scan.frames.astype(int)}, "values of the frames are below 0"),
        (
            lambda scan: {"frames": with_value(scan.frames, np.nan, np.s_[:, 5, 5])},
            r"all 12 frames hold values that are no numbers \(NaN\).* --mask FILE",
        ),
    ],
)
def test_what_nothing_can_come_of_is_refused_with_its_reason(scan, change, words):
    with pytest.raises(ValueError, match=f"scan 'scan': .*{words}"):
        examined(task_of(replace(scan, **change(scan)), ReconstructOptions()))


def test_one_frame_is_no_scan(scan):
    task = task_of(scan, ReconstructOptions())
    with pytest.raises(ValueError, match="one frame has a position: ptychography needs neighbours"):
        examined(replace(task, used=task.used[:1]))


@pytest.mark.parametrize(
    ("value", "where", "words", "n_left"),
    [
        (
            np.nan,
            np.s_[3, 5, 5],
            "1 of 12 frames hold values that are no numbers (NaN) and are left out: 103",
            11,
        ),
        (-1, np.s_[:, 5, 5], "12 values of the frames are below 0 and count as 0", 12),
        (0, np.s_[2:4], "2 of 12 frames hold no photon: 102-103", 12),
    ],
)
def test_what_is_doubtful_of_some_frames_is_said_with_their_numbers(
    scan, caplog, value, where, words, n_left
):
    odd = replace(scan, frames=with_value(scan.frames, value, where))
    task = examined(task_of(odd, ReconstructOptions()))
    assert len(task.used) == n_left
    assert [record.getMessage() for record in caplog.records] == [words]


def test_masked_pixels_may_hold_anything(scan, caplog):
    mask = np.ones(scan.frames.shape[1:], bool)
    mask[5, 5] = mask[6, 6] = False
    frames = with_value(with_value(scan.frames, np.nan, np.s_[:, 5, 5]), -7, np.s_[:, 6, 6])
    task = examined(task_of(replace(scan, frames=frames, mask=mask), ReconstructOptions()))
    assert not caplog.records
    assert all(np.isfinite(patterns).all() for _, patterns, _ in task.blocks())


def test_many_modes_are_doubted_and_more_than_any_scan_tells_apart_are_refused(scan, caplog):
    examined(task_of(scan, ReconstructOptions(n_modes=12)))
    assert [record.getMessage() for record in caplog.records] == [
        "12 modes of the probe: few scans tell more than 10 apart"
    ]
    with pytest.raises(ValueError, match="wanted at most 32 modes of the probe, got 5000"):
        ReconstructOptions(n_modes=5000)
