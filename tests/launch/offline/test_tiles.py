import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.simulate import write_scan
from launch.offline.reconstruct import reconstruct
from launch.offline.recorded import open_recorded
from launch.offline.task import ReconstructOptions
from launch.offline.tiles import TileRefinement
from operators.engine.config import RefinerConfig
from operators.engine.projections import ProjectionConfig
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge

EPOCHS_4 = ReconstructOptions(epochs=4, device="numpy", refiner=RefinerConfig(batch_size=8))


@pytest.fixture(scope="module")
def simulated():
    return simulate_scan(Simulation(n_rows=10, n_columns=12))


@pytest.fixture(scope="module")
def path(simulated, tmp_path_factory):
    path = tmp_path_factory.mktemp("tiled") / "simulated.cxi"
    write_scan(path, simulated, "test")
    return str(path)


@pytest.fixture
def started(monkeypatch):
    """The tiles of the reconstruction that runs, as soon as they exist."""
    tiles = []
    start = TileRefinement.__enter__

    def enter(tile):
        tiles.append(tile)
        return start(tile)

    monkeypatch.setattr(TileRefinement, "__enter__", enter)
    return tiles


def distance_from_truth(result, simulated):
    """The loose error, gauge removed, half a window inside the edge."""
    inside = result.bounds.padded(-result.geometry.n_pixels // 2)
    truth = simulated.object[inside.top : inside.bottom, inside.left : inside.right]
    found = result.object[inside.slices_in(result.bounds)]
    return nrmse(remove_gauge(found, truth, scale=True), truth).c


def reconstruct_file(path, options, **others):
    with open_recorded(path) as scan:
        return reconstruct(scan, options, **others)


@pytest.mark.slow
def test_four_processes_come_as_close_to_the_truth_as_one(path, simulated):
    one = replace(EPOCHS_4, epochs=24, device="auto")
    serial = distance_from_truth(reconstruct_file(path, one), simulated)
    tiled = distance_from_truth(reconstruct_file(path, replace(one, tiles=4)), simulated)
    assert tiled < 1.1 * serial
    assert serial < 0.2


@pytest.mark.slow
def test_tiles_give_what_one_process_gives(path, started):
    seen = []
    options = replace(EPOCHS_4, tiles=3, n_modes=2, scale_probe=True)
    whole = reconstruct_file(path, options, progress=lambda epoch, error: seen.append((epoch, error)))
    alone = reconstruct_file(path, replace(options, tiles=1))
    assert [len(tile.job.used) for tile in started] == [40, 40, 40]
    assert len({tile.pid for tile in started} | {os.getpid()}) == 4
    assert whole.bounds == alone.bounds
    np.testing.assert_array_equal(whole.frame_numbers, alone.frame_numbers)
    np.testing.assert_array_equal(whole.positions_m, alone.positions_m)
    np.testing.assert_allclose(whole.photons, alone.photons, rtol=0.1, atol=0.1 * alone.photons.max())
    power, expected = ((np.abs(result.probe) ** 2).sum() for result in (whole, alone))
    assert power == pytest.approx(expected, rel=1e-3)
    assert abs(np.vdot(*result_modes(whole.probe))) < 1e-3 * power
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert [error for _, error in seen] == list(whole.error_history)
    assert whole.error_history[-1] == pytest.approx(alone.error_history[-1], rel=0.5)


@pytest.mark.slow
def test_tiles_end_when_who_is_told_wants_them_to_and_none_has_missed_an_epoch(path, caplog):
    options = replace(EPOCHS_4, tiles=2)
    result = reconstruct_file(path, options, progress=lambda epoch, error: epoch == 2)
    assert len(result.error_history) == 2
    assert "missed" not in caplog.text


def result_modes(probe):
    return probe[0].ravel(), probe[1].ravel()


def kill_at(epoch, tiles, number):
    """What kills the process of a tile once the others have come to an epoch."""

    def progress(reached, error):
        if reached == epoch:
            os.kill(tiles[number].pid, signal.SIGKILL)

    return progress


@pytest.mark.slow
def test_a_killed_tile_starts_again_from_the_last_exchange_and_the_others_do_not_wait(
    path, simulated, started, caplog
):
    options = replace(EPOCHS_4, tiles=2, epochs=12)
    result = reconstruct_file(path, options, progress=kill_at(2, started, 0))
    assert started[1].epochs == 12
    assert "tile 0 was killed by signal 9; starts again" in caplog.text
    missed = 12 - started[0].epochs
    assert f"tile 0 missed {missed:g} of 12 epochs" in caplog.text
    assert distance_from_truth(result, simulated) < 0.5
    assert len(result.error_history) == 12


@pytest.mark.slow
def test_when_all_are_killed_the_image_goes_on_from_the_last_exchange(path, started):
    def kill_all(reached, error):
        if reached == 3:
            for tile in started:
                os.kill(tile.pid, signal.SIGKILL)

    options = replace(EPOCHS_4, tiles=2, epochs=6)
    history = reconstruct_file(path, options, progress=kill_all).error_history
    assert max(tile.epochs for tile in started) == 6
    assert len(history) == 6
    assert (history[3:] < 1.2 * history[2]).all()
    assert history[0] > 2 * history[2]


@pytest.mark.slow
def test_a_tile_that_is_lost_again_is_named_with_its_frames_and_keeps_the_object_of_the_last_exchange(
    path, simulated, started, caplog, monkeypatch
):
    monkeypatch.setattr("launch.offline.tiles.MOST_STARTS", 1)
    options = replace(EPOCHS_4, tiles=2, epochs=6)
    result = reconstruct_file(path, options, progress=kill_at(3, started, 1))
    assert (started[0].epochs, started[1].epochs) == (6, 3)
    assert "the others go on without it" in caplog.text
    assert "tile 1 missed 3 of 6 epochs" in caplog.text
    assert "60 frames were refined less: 6-17, 30-41" in caplog.text
    assert np.isfinite(result.object).all()
    assert len(result.frame_numbers) == 120


@pytest.mark.slow
def test_when_all_are_lost_there_is_no_result(path, started, monkeypatch):
    monkeypatch.setattr("launch.offline.tiles.MOST_STARTS", 1)

    def kill_all(reached, error):
        for tile in started:
            os.kill(tile.pid, signal.SIGKILL)

    with pytest.raises(RuntimeError, match="all 2 tiles are lost"):
        reconstruct_file(path, replace(EPOCHS_4, tiles=2), progress=kill_all)


@pytest.mark.slow
def test_a_tile_that_refuses_its_job_ends_the_run_with_its_reason(path):
    with open_recorded(path) as scan:
        gone = replace(scan, reopen=partial(open_recorded, "nowhere.cxi"))
        with pytest.raises(ValueError, match=r"tile [01]: nowhere\.cxi: neither a file"):
            reconstruct(gone, replace(EPOCHS_4, tiles=2))


def test_what_cannot_be_tiled_is_refused(path):
    with open_recorded(path) as scan:
        with pytest.raises(ValueError, match="is not in a file that other processes could open"):
            reconstruct(replace(scan, reopen=None), replace(EPOCHS_4, tiles=2))
        with pytest.raises(ValueError, match="expected 1 to 120 tiles"):
            reconstruct(scan, replace(EPOCHS_4, tiles=121))
    with pytest.raises(ValueError, match="1 for dm and raar"):
        replace(EPOCHS_4, tiles=2, projections=ProjectionConfig())
