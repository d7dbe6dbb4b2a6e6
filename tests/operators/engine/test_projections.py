import numpy as np
import pytest

from operators.arrays import to_numpy
from operators.engine.projections import ProjectionConfig, Projections
from operators.geometry import Bounds
from operators.metrics.errors import amplitude_error, nrmse
from operators.optics.probe import probe_modes, with_power, zone_plate_probe
from tests.helpers.operators.scenes import DISC_PX, N_PIXELS, PHOTONS, PUPIL_PX, make_scene


@pytest.fixture(scope="module")
def scene():
    return make_scene()


def error(scene, projections):
    inside = projections.bounds.padded(-N_PIXELS // 2)
    truth = scene.truth[inside.top : inside.bottom, inside.left : inside.right]
    return nrmse(to_numpy(projections.object)[inside.slices_in(projections.bounds)], truth).c


def projected(scene, n_epochs, *, probe=None, xp=np, mask=None, patterns=None, **settings):
    projections = Projections(
        ProjectionConfig(**settings),
        scene.probe if probe is None else probe,
        scene.patterns if patterns is None else patterns,
        scene.corners.astype(float),
        mask=mask,
        xp=xp,
    )
    for _ in range(n_epochs):
        projections.step()
    if n_epochs:
        projections.finish()
    return projections


@pytest.mark.parametrize("algorithm", ["dm", "raar"])
def test_the_object_is_found(scene, xp, algorithm):
    projections = projected(scene, 60, xp=xp, algorithm=algorithm, probe_start=1000)
    assert error(scene, projections) < 0.25
    assert projections.history[-1] < 0.1 * projections.history[0]


@pytest.mark.parametrize("algorithm", ["dm", "raar"])
def test_object_and_probe_are_found_from_a_wrong_probe(scene, algorithm):
    wrong = with_power(zone_plate_probe(N_PIXELS, PUPIL_PX, 1.15 * DISC_PX)[None], PHOTONS)
    probe = projected(scene, 60, probe=wrong, algorithm=algorithm).probe
    overlap = abs(np.vdot(probe, scene.probe)) / (np.linalg.norm(probe) * np.linalg.norm(scene.probe))
    assert overlap > 0.99
    assert float((np.abs(probe) ** 2).sum()) == pytest.approx(PHOTONS, rel=1e-4)


@pytest.mark.parametrize("algorithm", ["dm", "raar"])
def test_a_model_that_explains_the_data_stays_where_it_is(algorithm):
    scene = make_scene(side=4, is_noisy=False)
    projections = projected(scene, 0, algorithm=algorithm)
    projections.object[...] = scene.truth[projections.bounds.slices_in(Bounds(0, 0, *scene.truth.shape))]
    projections._waves = projections._model()  # only a start at the solution shows that it is kept
    before = projections.object.copy()
    assert projections.step() < 1e-6
    lit = projections.illumination > 0.1 * projections.illumination.max()
    np.testing.assert_allclose(projections.object[lit], before[lit], atol=0.02)


def test_the_error_is_that_of_the_model(scene):
    projections = projected(scene, 0)
    corners = scene.corners - projections.bounds.origin
    expected = amplitude_error(scene.patterns, projections.object, projections.probe, corners)
    assert projections.step() == pytest.approx(expected, rel=1e-4)


def test_modes_share_what_one_cannot_explain():
    coherent = zone_plate_probe(N_PIXELS, PUPIL_PX, DISC_PX)
    scene = make_scene(probe=probe_modes(coherent, 3, power=0.15), photons=1e6)
    errors = []
    for n_modes in (1, 3):
        start = with_power(probe_modes(scene.probe[0], n_modes, power=0.02), 1e6)
        errors.append(projected(scene, 40, probe=start, algorithm="raar").history[-1])
    assert errors[1] < 0.7 * errors[0]


def test_garbage_in_invalid_pixels_does_no_harm(scene):
    mask = np.ones((N_PIXELS, N_PIXELS), bool)
    mask[4:7, 20] = mask[0, 9] = False
    spoilt = scene.patterns.copy()
    spoilt[:, ~mask] = 1e6
    projections = projected(scene, 60, patterns=spoilt, mask=mask, probe_start=1000)
    assert error(scene, projections) < 0.3


@pytest.mark.parametrize("setting", [{"algorithm": "hio"}, {"beta": 0.0}, {"probe_start": -1}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        ProjectionConfig(**setting)
