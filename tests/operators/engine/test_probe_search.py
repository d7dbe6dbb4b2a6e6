import numpy as np
import pytest

from operators.engine.config import RefinerConfig
from operators.engine.probe_search import estimate_probe, probe_from_burst
from operators.engine.refiner import Refiner
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from operators.optics.forward import simulate_counts
from operators.optics.probe import zone_plate_probe
from tests.helpers.operators.scenes import N_PIXELS, PHOTONS, PUPIL_PX, append_all, make_scene


def similarity(a, b):
    return abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("disc_px", [8.0, -8.0, 5.0])
def test_curvature_and_its_sign_are_found_from_the_data(disc_px):
    scene = make_scene(probe=zone_plate_probe(N_PIXELS, PUPIL_PX, disc_px)[None])
    probe = estimate_probe(scene.patterns, scene.corners.astype(float))
    assert probe.shape == (1, N_PIXELS, N_PIXELS)
    assert similarity(probe, scene.probe) > 0.9
    assert similarity(probe.conj()[:, ::-1, ::-1], scene.probe) < 0.6
    assert float((np.abs(probe) ** 2).sum()) == pytest.approx(
        scene.patterns.sum() / len(scene.patterns), rel=1e-3
    )


def test_refinement_from_the_probe_found_reaches_the_truth():
    scene = make_scene()
    probe = estimate_probe(scene.patterns, scene.corners.astype(float))
    refiner = Refiner(RefinerConfig(), probe)
    append_all(refiner, scene)
    while refiner.epoch < 30:
        refiner.step()
    snapshot = refiner.snapshot()
    assert similarity(snapshot.probe, scene.probe) > 0.98
    found, truth = scene.common_ground(snapshot)
    # a probe from data leaves the scale free, and where in its window the probe lies
    assert nrmse(remove_gauge(found, truth, scale=True), truth).c < 0.3


@pytest.mark.parametrize("off", [0.7, 1.3])
def test_a_guess_out_of_focus_is_brought_back(off):
    scene = make_scene(probe=zone_plate_probe(N_PIXELS, PUPIL_PX, 8.0)[None])
    guess = zone_plate_probe(N_PIXELS, PUPIL_PX, 8.0 * off)[None]
    probe = probe_from_burst(
        scene.patterns, scene.corners.astype(float), guess=guess, photons=1234.0, n_epochs=4
    )
    assert similarity(probe, scene.probe) > 0.97
    assert similarity(probe, scene.probe) > similarity(guess, scene.probe) + 0.02
    assert float((np.abs(probe) ** 2).sum()) == pytest.approx(1234.0, rel=1e-3)


@pytest.mark.slow
def test_refining_on_the_burst_sharpens_the_probe_and_the_sample_is_allowed_to_absorb():
    scene = make_scene()
    positions_px = scene.corners.astype(float)
    rough = estimate_probe(scene.patterns, positions_px)
    probe = probe_from_burst(scene.patterns, positions_px, transmission=0.8)
    assert similarity(probe, scene.probe) > max(0.97, similarity(rough, scene.probe))
    mean = scene.patterns.sum(dtype=np.float64) / len(scene.patterns)
    assert float((np.abs(probe) ** 2).sum()) == pytest.approx(mean / 0.8, rel=1e-3)


def test_pixels_that_are_not_valid_are_not_looked_at():
    scene = make_scene()
    mask = np.ones((N_PIXELS, N_PIXELS), bool)
    mask[9, 9] = False
    spoilt = scene.patterns.copy()
    spoilt[::3, 9, 9] = PHOTONS  # Preprocess zeroes it, as below
    spoilt *= mask
    probe = estimate_probe(spoilt, scene.corners.astype(float), n_modes=3, mask=mask)
    assert probe.shape == (3, N_PIXELS, N_PIXELS)
    assert similarity(probe[0], scene.probe[0]) > 0.9


@pytest.mark.slow
def test_positions_that_belong_to_other_frames_are_refused():
    scene = make_scene()
    shuffled = np.random.default_rng(0).permutation(scene.corners).astype(float)
    with pytest.raises(ValueError, match=r"no curvature of the probe explains .* check unit, signs and axes"):
        estimate_probe(scene.patterns, shuffled)


@pytest.mark.parametrize("share", [0.06, 0.1])
def test_a_faint_sample_is_enough_though_noise_is_most_of_what_its_frames_differ_by(share):
    scene = make_scene()
    faint = simulate_counts(scene.truth**share, scene.probe, scene.corners, np.random.default_rng(1))
    probe = estimate_probe(faint.astype(np.float32), scene.corners.astype(float))
    assert similarity(probe, scene.probe) > 0.95


def test_frames_without_a_sample_are_refused_for_that_reason():
    scene = make_scene()
    empty = np.ones_like(scene.truth)
    frames = simulate_counts(empty, scene.probe, scene.corners, np.random.default_rng(1)).astype(np.float32)
    with pytest.raises(ValueError, match=r"differ by more than photon noise.*where the sample is"):
        estimate_probe(frames, scene.corners.astype(float))


def test_too_few_frames_are_refused():
    scene = make_scene(side=4)
    with pytest.raises(ValueError, match="at least 24 overlapping frames, got 16"):
        estimate_probe(scene.patterns, scene.corners.astype(float))
