"""The CUDA update against the reference: its sources on the processor, and, marked cuda, on a device."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

from operators.arrays import ArrayModule, get_array_module, to_numpy
from operators.engine.backends import Backend, get_backend
from operators.engine.config import RefinerConfig
from operators.engine.cuda.sources import source
from operators.engine.cuda.update import FUSED_SHAPE, CudaUpdate
from operators.engine.epie import Accumulators, Batch, Steps, update
from operators.engine.frame_store import FrameStore
from operators.engine.refiner import Refiner
from operators.optics.forward import intensities
from operators.optics.probe import probe_modes, with_power, zone_plate_probe
from operators.patches import extract_patches
from tests.benchmarks.engines import gpu
from tests.helpers.operators.cuda_on_host import HostDevice, needs_compiler
from tests.helpers.operators.scenes import (
    N_PIXELS,
    append_all,
    assert_same_end,
    make_scene,
    run_epochs,
    smooth_object,
)

TOLERANCE = 1e-5  # of the largest value; an update of single precision rounds to about 1e-6
STEPS = Steps(object_step=0.9, probe_step=0.8, alpha=0.3, probe_photons=9e4)


class Place(NamedTuple):
    """Where an update runs: the module of its arrays and what opens its device."""

    xp: ArrayModule
    open_device: Callable[[int, int], Any]


@pytest.fixture(
    params=[pytest.param("host", marks=needs_compiler), pytest.param("device", marks=pytest.mark.cuda)]
)
def place(request):
    if request.param == "host":
        return Place(np, HostDevice)
    try:
        xp = get_array_module("cupy")
    except ValueError as unusable:
        pytest.skip(str(unusable))
    from operators.engine.cuda.device import CudaDevice

    return Place(xp, CudaDevice)


@pytest.fixture(scope="module")
def scene():
    return make_scene(side=4)


class Start(NamedTuple):
    """An object and a probe away from the truth, and all frames of a scan."""

    object: np.ndarray
    probe: np.ndarray
    corners: np.ndarray
    amplitudes: np.ndarray  # float16


def start_of(scene, n_modes: int = 1) -> Start:
    amplitudes = np.sqrt(scene.patterns).astype(np.float16)
    return Start(rough(scene.truth), probe_modes(scene.probe[0], n_modes), scene.corners, amplitudes)


@pytest.fixture(scope="module")
def large_start() -> Start:
    """Windows of 128 x 128 pixels, which the fused kernel is for."""
    rng = np.random.default_rng(1)
    truth = smooth_object((148, 152), rng)
    probe = with_power(zone_plate_probe(128, 20.0, 20.0)[None], 1e6).astype(np.complex64)
    corners = np.array([[0, 0], [3, 9], [17, 20], [20, 24], [8, 1]])
    patterns = rng.poisson(intensities(probe, extract_patches(truth, corners, 128)))
    turned = (0.9 * np.exp(0.3j) * probe).astype(np.complex64)
    return Start(rough(truth), turned, corners, np.sqrt(patterns).astype(np.float16))


def rough(truth):
    """Scatters everywhere: where nothing arrives, the phase, and so the correction, is rounding alone."""
    noise = np.random.default_rng(1).standard_normal((2, *truth.shape))
    return (truth + 0.3 * (noise[0] + 1j * noise[1])).astype(np.complex64)


def lopsided_mask(n_pixels):
    """No symmetry of the pattern maps it to itself."""
    ky, kx = np.meshgrid(*(np.fft.fftfreq(n_pixels) for _ in range(2)), indexing="ij")
    return (np.hypot(ky, kx) < 0.35) & (ky < 0.25)


def run_updates(run_update, xp, start, steps, mask=None, n_updates=3, weights=None, shifts=None):
    """Object, probe and the errors of every update, on the host."""
    object_, probe = xp.array(start.object), xp.array(start.probe)
    sums = Accumulators(object_.shape, xp)
    weights = np.ones(len(start.corners), np.float32) if weights is None else weights
    batch = Batch(xp.asarray(start.amplitudes), start.corners, weights, shifts)
    valid = None if mask is None else xp.asarray(mask)
    errors = [run_update(object_, probe, batch, steps, sums, mask=valid) for _ in range(n_updates)]
    assert not sums.correction.any()
    assert not sums.illumination.any()
    return to_numpy(object_), to_numpy(probe), to_numpy(xp.stack(errors))


def assert_close(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


STEPS_AND_NOISE = pytest.mark.parametrize(
    ("probe_step", "alpha", "is_poisson"), [(0.0, 0.3, True), (0.8, 0.3, False), (0.8, 1.0, True)]
)


@pytest.mark.parametrize("n_modes", [1, 3])
@pytest.mark.parametrize("mask", [None, lopsided_mask(N_PIXELS)], ids=["whole", "masked"])
@STEPS_AND_NOISE
def test_every_update_equals_the_reference(scene, place, n_modes, mask, probe_step, alpha, is_poisson):
    steps = Steps(object_step=0.9, probe_step=probe_step, alpha=alpha, is_poisson=is_poisson)
    start, weights = start_of(scene, n_modes), np.arange(len(scene.corners), dtype=np.float32) % 3
    run = partial(run_updates, start=start, steps=steps, mask=mask, weights=weights)
    assert_close(run(CudaUpdate(place.open_device, place.xp), place.xp), run(update, np))


@pytest.mark.parametrize("mask", [None, lopsided_mask(128)], ids=["whole", "masked"])
@STEPS_AND_NOISE
def test_every_fused_update_equals_the_reference(large_start, place, mask, probe_step, alpha, is_poisson):
    assert large_start.probe.shape == FUSED_SHAPE
    steps = Steps(object_step=0.9, probe_step=probe_step, alpha=alpha, is_poisson=is_poisson)
    weights = np.array([1, 0, 1, 0.5, 1], np.float32)
    run = partial(run_updates, start=large_start, steps=steps, mask=mask, weights=weights)
    launched = []
    fused = CudaUpdate(recording(place.open_device, launched), place.xp, is_fused=True)
    assert_close(run(fused, place.xp), run(update, np))
    assert "fused_corrections" in launched
    assert "exit_waves" not in launched


def test_the_probe_keeps_the_power_it_is_told(scene, place):
    run = partial(run_updates, start=start_of(scene, 3), steps=STEPS)
    found = run(CudaUpdate(place.open_device, place.xp), place.xp)
    assert (np.abs(found[1]) ** 2).sum() == pytest.approx(STEPS.probe_photons, rel=1e-5)
    assert_close(found, run(update, np))


def recording(open_device, launched):
    """A device that notes the kernels it is asked for."""

    def open_recording(*size):
        device = open_device(*size)
        launch = device.launch

        def noted(kernel, *arguments):
            launched.append(kernel)
            launch(kernel, *arguments)

        device.launch = noted
        return device

    return open_recording


def without_graphs(open_device):
    """A device that runs every kernel when it is asked for."""

    def open_eager(*size):
        device = open_device(*size)
        device.captured = lambda run: run
        return device

    return open_eager


@pytest.mark.parametrize("is_fused", [False, True], ids=["batched", "fused"])
def test_a_graph_follows_what_changes_from_update_to_update(large_start, place, is_fused):
    """Frames, their order and number, steps and probe: all it holds is where they are written."""
    ends, launched = [], []
    for open_device in (recording(place.open_device, launched), without_graphs(place.open_device)):
        run_update, xp = CudaUpdate(open_device, place.xp, is_fused=is_fused), place.xp
        object_, probe = xp.array(large_start.object), xp.array(large_start.probe)
        sums, store = Accumulators(object_.shape, xp), FrameStore(128, None, xp)
        patterns = large_start.amplitudes.astype(np.float32) ** 2
        store.put(range(len(patterns)), patterns, large_start.corners.astype(float))
        for n_update, slots in enumerate([[0, 1, 2, 3, 4], [4, 1, 0, 2], [3], [2, 1, 4, 3, 0]]):
            steps = Steps(object_step=1 - 0.2 * n_update, probe_step=0.5, alpha=0.2 + 0.1 * n_update)
            weights = np.ones(len(slots), np.float32)
            batch = Batch(store.select(np.array(slots)), large_start.corners[slots], weights)
            errors = run_update(object_, probe, batch, steps, sums)
            assert errors.shape == (len(slots),)
            probe *= xp.float32(0.9)
        ends.append((to_numpy(object_), to_numpy(probe), to_numpy(errors)))
    assert launched.count("move_object") == 2, "once run, once captured, then only replayed"
    assert_close(ends[0], ends[1])


def test_a_refinement_ends_where_the_reference_ends(scene, place):
    """With a canvas that grows, a probe of more modes, a sweep's last small batch and a held probe."""
    ends = []
    for xp, run_update in ((np, update), (place.xp, CudaUpdate(place.open_device, place.xp))):
        refiner = Refiner(RefinerConfig(batch_size=6), scene.probe, xp=xp, run_update=run_update)
        append_all(refiner, scene, slice(0, 6))
        run_epochs(refiner, 3)
        append_all(refiner, scene, slice(6, None))
        run_epochs(refiner, 3)
        refiner.set_probe(probe_modes(to_numpy(refiner.probe)[0], 3))
        run_epochs(refiner, 6)
        ends.append(refiner.snapshot())
    assert_same_end(ends[1], ends[0])


def test_fractional_positions_and_other_arrays_go_to_the_reference(scene, place):
    shifts = np.full(scene.corners.shape, 0.25, np.float32)
    run = partial(run_updates, start=start_of(scene), steps=STEPS, shifts=shifts)
    refusing = CudaUpdate(place.open_device, place.xp)
    assert_close(run(refusing, place.xp), run(update, np))
    other = CudaUpdate(place.open_device, object())
    assert_close(
        run_updates(other, np, start_of(scene), STEPS), run_updates(update, np, start_of(scene), STEPS)
    )


def test_windows_outside_the_object_are_refused(scene, place):
    start = start_of(scene)
    outside = start._replace(corners=start.corners + 100)
    with pytest.raises(ValueError, match="reach outside the object"):
        run_updates(CudaUpdate(place.open_device, place.xp), place.xp, outside, STEPS)


@pytest.mark.parametrize("probe", ["transposed", "double"])
def test_arrays_of_another_layout_are_refused(scene, place, probe):
    """A kernel would read them as something else."""
    probes = {
        "transposed": np.ascontiguousarray(scene.probe.swapaxes(1, 2)).swapaxes(1, 2),
        "double": scene.probe.astype(np.complex128),
    }
    start = start_of(scene)._replace(probe=probes[probe])
    with pytest.raises(ValueError, match="expects probe to be C-ordered complex64"):
        run_updates(CudaUpdate(place.open_device, place.xp), place.xp, start, STEPS)


@pytest.mark.parametrize("is_fused", [False, True], ids=["batched", "fused"])
def test_nan_is_not_lost(large_start, place, is_fused):
    """It tells that refinement diverged; a comparison may drop it silently."""
    object_ = large_start.object.copy()
    object_[5, 5] = np.nan
    run_update = CudaUpdate(place.open_device, place.xp, is_fused=is_fused)
    found = run_updates_leaving_sums(run_update, place.xp, large_start._replace(object=object_))
    assert np.isnan(found[2][0]).tolist() == [True, False, False, False, False]
    assert np.isnan(found[0]).any()
    assert np.isnan(found[1]).all()


def run_updates_leaving_sums(run_update, xp, start):
    object_, probe = xp.array(start.object), xp.array(start.probe)
    batch = Batch(xp.asarray(start.amplitudes), start.corners, np.ones(len(start.corners), np.float32))
    errors = run_update(object_, probe, batch, STEPS, Accumulators(object_.shape, xp))
    return to_numpy(object_), to_numpy(probe), [to_numpy(errors)]


@needs_compiler
def test_no_thread_reads_what_another_has_not_written_yet(large_start):
    """Threads that take turns the other way round find the same bits; without a barrier they do not."""

    def run(text, is_downwards):
        open_device = partial(HostDevice, is_downwards=is_downwards, text=text)
        return run_updates_leaving_sums(CudaUpdate(open_device, np, is_fused=True), np, large_start)

    for ours, theirs in zip(run(source(), False), run(source(), True), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    first = source().index("__syncthreads();", source().index("void forward("))
    broken = source()[:first] + source()[first + len("__syncthreads();") :]
    assert not np.array_equal(run(broken, False)[0], run(broken, True)[0])


@needs_compiler
@pytest.mark.slow
@pytest.mark.timeout(600)  # ten seconds on a core of its own
def test_the_benchmark_finds_its_figures(monkeypatch):
    """On the processor, with nine frames: a device is lent for minutes, and nothing may fail there first."""
    sizes = gpu.Sizes(sides=(3, 3), batch_size=4, large_batch_size=6, n_batches=2)
    monkeypatch.setattr(gpu, "N_ROUNDS", 1)
    monkeypatch.setattr(gpu, "N_EPOCHS", 12)
    monkeypatch.setattr(gpu, "_device_name", lambda xp: "no device")
    monkeypatch.setattr(
        gpu,
        "get_backend",
        lambda name: Backend(name, np, CudaUpdate(HostDevice, np, is_fused=name == "cupy-fused")),
    )
    figures = gpu.gpu_figures(sizes)
    assert set(figures) > set(gpu.GPU_TARGETS)
    assert figures["gpu_equal_to_reference"] < TOLERANCE
    assert figures["gpu_fraction_of_limit"] > 0


def test_without_a_device_there_are_no_figures(monkeypatch):
    monkeypatch.setattr("operators.arrays.usable_cupy", lambda: None)
    assert gpu.gpu_figures() == {"gpu": "no CUDA device: not measured"}


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("operators.arrays.usable_cupy", lambda: None)
    for name in ("cupy", "cupy-fused"):
        with pytest.raises(ValueError, match="gpu-cuda12"):
            get_backend(name)


@pytest.mark.cuda
def test_a_device_is_refined_on_by_these_kernels():
    for name, is_fused in (("cupy", False), ("auto", True), ("cupy-fused", True)):
        try:
            backend = get_backend(name)
        except ValueError as unusable:
            pytest.skip(str(unusable))
        if backend.name == "compiled":
            pytest.skip("no CUDA device")
        assert isinstance(backend.update, CudaUpdate)
        assert backend.update.is_fused == is_fused


@pytest.mark.cuda
@pytest.mark.parametrize("run_update", ["reference", "cupy", "cupy-fused"])
def test_between_two_looks_at_the_residuals_nothing_is_read_back(run_update):
    cupyx = pytest.importorskip("cupyx")
    scene = make_scene(side=6)
    try:
        backend = get_backend("cupy" if run_update == "reference" else run_update)
    except ValueError as unusable:
        pytest.skip(str(unusable))
    chosen = update if run_update == "reference" else backend.update
    refiner = Refiner(RefinerConfig(batch_size=6), scene.probe, xp=backend.xp, run_update=chosen)
    append_all(refiner, scene)
    run_epochs(refiner, 2)
    while refiner._n_since_check:
        refiner.step()
    with cupyx.allow_synchronize(False):
        refiner.step(5)
