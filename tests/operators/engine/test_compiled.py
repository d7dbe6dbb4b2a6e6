"""The compiled update against the reference, to rounding of single precision."""

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from operators.engine.backends import get_backend
from operators.engine.compiled.update import CompiledUpdate, can_compile
from operators.engine.config import RefinerConfig
from operators.engine.epie import Accumulators, Batch, Steps, update
from operators.engine.position_steps import position_steps
from operators.engine.refiner import Refiner
from operators.optics.probe import probe_modes
from tests.helpers.operators.scenes import N_PIXELS, append_all, assert_same_end, make_scene, run_epochs

pytestmark = pytest.mark.skipif(not can_compile(), reason="needs numba and FFTW, of the extra `fast`")

TOLERANCE = 1e-5  # of the largest value; an update of single precision rounds to about 1e-6


@pytest.fixture(scope="module")
def scene():
    return make_scene(side=6)


@pytest.fixture(params=[1, 3], ids=["one worker", "three workers"])
def compiled(request):
    with ThreadPoolExecutor(request.param) as pool:
        yield CompiledUpdate(n_workers=request.param, each_worker=pool.map)


def disc_of_valid_pixels():
    ky, kx = np.meshgrid(*(np.fft.fftfreq(N_PIXELS) for _ in range(2)), indexing="ij")
    return np.hypot(ky, kx) < 0.35


def rough_object(scene):
    """Scatters everywhere: where nothing arrives, the phase, and so the correction, is rounding alone."""
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((2, *scene.truth.shape))
    return (scene.truth + 0.3 * (noise[0] + 1j * noise[1])).astype(np.complex64)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("n_modes", [1, 3])
@pytest.mark.parametrize("mask", [None, disc_of_valid_pixels()], ids=["whole", "masked"])
@pytest.mark.parametrize("has_shifts", [False, True], ids=["pixels", "subpixel"])
@pytest.mark.parametrize(("probe_step", "is_poisson"), [(0.0, True), (0.8, False), (0.8, True)])
def test_every_update_equals_the_reference(
    scene, compiled, n_modes, mask, has_shifts, probe_step, is_poisson
):
    rng = np.random.default_rng(0)
    shifts = rng.uniform(-0.5, 0.5, scene.corners.shape).astype(np.float32) if has_shifts else None
    weights = rng.integers(0, 2, len(scene.corners)).astype(np.float32)
    gradients = np.zeros((len(weights), 5), np.float32)
    batch = Batch(np.sqrt(scene.patterns).astype(np.float16), scene.corners, weights, shifts, gradients)
    steps = Steps(object_step=0.9, probe_step=probe_step, alpha=0.3, is_poisson=is_poisson)
    ends = []
    for run_update in (update, compiled):
        object_ = rough_object(scene)
        probe, sums = probe_modes(scene.probe[0], n_modes), Accumulators(object_.shape, np)
        errors = [run_update(object_, probe, batch, steps, sums, mask=mask) for _ in range(3)]
        assert not sums.correction.any()
        assert not sums.illumination.any()
        ends.append((object_, probe, np.stack(errors), position_steps(gradients)))
    for found, expected in zip(ends[1], ends[0], strict=True):
        assert_close(found, expected)


def test_a_refinement_ends_where_the_reference_ends(scene, compiled):
    """Rounding grows over epochs, but stays far below the noise of the data."""
    ends = []
    for run_update in (update, compiled):
        refiner = Refiner(RefinerConfig(), scene.probe, run_update=run_update)
        append_all(refiner, scene)
        run_epochs(refiner, 20)
        ends.append(refiner.snapshot())
    assert_same_end(ends[1], ends[0])


def test_a_canvas_that_grows_and_a_probe_of_other_modes_are_followed(scene, compiled):
    refiner = Refiner(RefinerConfig(), scene.probe, run_update=compiled)
    append_all(refiner, scene, slice(0, 6))
    run_epochs(refiner, 2)
    append_all(refiner, scene, slice(6, None))
    refiner.set_probe(probe_modes(scene.probe[0], 2))
    run_epochs(refiner, 15)
    assert scene.error(refiner.snapshot()) < 0.3


def test_nan_is_not_optimised_away(scene, compiled):
    object_ = np.ones(scene.truth.shape, np.complex64)
    object_[scene.corners[0][0] + 3, scene.corners[0][1] + 3] = np.nan
    ones = np.ones(len(scene.corners), np.float32)
    batch = Batch(np.sqrt(scene.patterns).astype(np.float16), scene.corners, ones)
    steps = Steps(object_step=1, probe_step=0, alpha=1)
    errors = compiled(object_, scene.probe.copy(), batch, steps, Accumulators(object_.shape, np))
    assert np.isnan(errors[0])


def test_auto_compiles_and_the_reference_can_be_asked_for():
    assert get_backend("numpy") == ("numpy", np, update)
    assert get_backend("compiled").name == "compiled"
    assert get_backend("auto").name in ("compiled", "cupy")
    with pytest.raises(ValueError, match="a backend of auto, numpy, compiled, cupy, cupy-fused, got"):
        get_backend("numba")


@pytest.mark.parametrize("missing", ["numba", "pyfftw"])
def test_compiling_takes_numba_and_fftw(missing, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find_spec(name))
    assert not can_compile()


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("operators.engine.backends.can_compile", lambda: False)
    with pytest.raises(ValueError, match=r"needs numba and pyfftw: install ptychostream\[fast\]"):
        get_backend("compiled")
    assert get_backend("auto").name != "compiled"


def test_numba_is_imported_only_for_refining():
    code = "import sys, operators.engine.refiner, operators.engine.backends; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
