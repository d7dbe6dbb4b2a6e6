"""Scans of a run that follow each other: the next one starts from what the last one refined."""

import shutil

import numpy as np
import pytest

import stream.stages.probe
from operators.arrays import to_numpy
from operators.geometry import Bounds
from operators.optics.forward import intensities
from operators.patches import extract_patches
from stream.record.forerunner import FOLDER, forerunner_of
from stream.record.probe import found_probe
from stream.record.scan import Scan
from stream.record.snapshot import write_snapshot
from stream.stages.config import ProbeConfig, RefinementConfig
from stream.stages.inputs import Optics
from stream.stages.probe import ProbeFinder
from stream.stages.refinement.worker import Refinement
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import (
    DETECTOR_PLANE,
    N_PIXELS,
    Sample,
    make_scan,
    place,
    record,
    snapshot_of,
)

N = 16  # frames
UNKNOWN = Optics(DETECTOR_PLANE)


@pytest.fixture
def bench(tmp_path, on_both_kinds_of_arrays):
    return Bench(tmp_path)


class Bench:
    """A scan refined to the truth, with a probe of its own, and one of the same place after it."""

    def __init__(self, folder):
        self.folder, self.scanned, self.numbers = folder, Sample(n_side=4), np.arange(N)
        self.first = make_scan(folder / "scans", "0000-a")
        self.refined_probe = (1.1 * self.scanned.probe).astype(np.complex64)
        self.refine(self.scanned.truth)
        self.second = make_scan(folder / "scans", "0001-b")
        patterns = np.random.default_rng(0).poisson(intensities(self.refined_probe, self.scanned.patches))
        record(self.second, self.numbers, np.fft.fftshift(patterns, axes=(1, 2)).astype("<u2"))
        place(self.second, self.numbers, self.scanned.corners)

    def refine(self, object_):
        top, left = (int(edge) for edge in self.scanned.origin)
        bounds = Bounds(top, left, top + object_.shape[0], left + object_.shape[1])
        peak = np.full(bounds.shape, (abs(self.refined_probe) ** 2).max())
        known = {"probe": self.refined_probe, "illumination": peak.astype(np.float32)}
        write_snapshot(self.first.folder, snapshot_of(object_, bounds, **known))

    def begin(self, reuse, optics=None):
        """Return the work of a new stage on the second scan after it has taken all frames."""
        stage = Refinement(
            RefinementConfig(probe_step=0, first_frames=4, publish_s=1e-9, device="numpy"),
            optics or self.scanned.optics(self.folder),
            n_modes=1,
            scale_probe=False,
            uses_network=False,
            starts_over=False,
            reuse=reuse,
            clock=Clock(),
        )
        work = stage.open(Scan(self.second.folder))
        work.handle(self.numbers)
        return work

    def probe_of(self, work):
        return to_numpy(work.object.engine.probe)

    def likeness(self, work):
        """How well the object is the truth where it is lit, 1 for wholly."""
        lit = self.scanned.illumination > 0.5 * self.scanned.illumination.max()
        truth = extract_patches(self.scanned.truth, self.scanned.corners - self.scanned.origin, N_PIXELS)
        a, b = to_numpy(work.object.engine.windows(self.scanned.corners))[:, lit], truth[:, lit]
        return np.abs(np.vdot(a, b)) / (np.linalg.norm(a) * np.linalg.norm(b))


@pytest.mark.parametrize("reuse", ["probe", "object"])
def test_a_known_probe_gives_way_to_the_one_that_the_last_scan_refined(bench, reuse):
    np.testing.assert_allclose(bench.probe_of(bench.begin(reuse)), bench.refined_probe, rtol=1e-5)
    np.testing.assert_allclose(bench.probe_of(bench.begin("none")), bench.scanned.probe, rtol=1e-5)


def test_without_a_known_probe_none_is_searched_for(bench):
    work = bench.begin("probe", UNKNOWN)  # of fewer frames than a search takes
    np.testing.assert_allclose(bench.probe_of(work), bench.refined_probe, rtol=1e-5)


def test_the_object_is_where_refinement_starts_and_the_probe_alone_brings_none(bench):
    assert bench.likeness(bench.begin("object")) > 0.999
    assert bench.likeness(bench.begin("probe")) < 0.98


def test_the_object_of_another_place_is_left_alone(bench):
    bench.refine(
        Sample(n_side=4, seed=3).truth[: bench.scanned.truth.shape[0], : bench.scanned.truth.shape[1]]
    )
    work = bench.begin("object")
    assert (to_numpy(work.object.engine.windows(bench.scanned.corners)) == 1).all()
    np.testing.assert_allclose(bench.probe_of(work), bench.refined_probe, rtol=1e-5)


def test_a_restart_starts_from_the_same_though_the_last_scan_went_on_or_is_gone(bench):
    bench.begin("object")
    bench.refine(np.ones_like(bench.scanned.truth))
    assert bench.likeness(bench.begin("object")) > 0.999
    shutil.rmtree(bench.first.folder)
    again = bench.begin("object")
    assert bench.likeness(again) > 0.999
    again.idle(deadline=-np.inf)
    restored = bench.begin("object")
    assert restored.counts()["updates"] == again.counts()["updates"] > 0


def test_it_is_on_record_from_what_a_scan_started(bench):
    bench.begin("object").idle(deadline=-np.inf)
    scan = Scan(bench.second.folder)
    assert (forerunner_of(scan), scan.count("refinement", "reused")) == ("0000-a", N)


def test_nothing_is_taken_over_unless_it_is_asked_for(bench):
    bench.begin("none").idle(deadline=-np.inf)
    assert not (bench.second.folder / FOLDER).exists()


def test_a_probe_that_the_last_scan_finds_meanwhile_ends_the_search_before_it_begins(bench, monkeypatch):
    monkeypatch.setattr(stream.stages.probe, "probe_from_burst", None)
    shutil.rmtree(bench.first.folder)
    bench.first = make_scan(bench.folder / "scans", "0000-a")
    stage = ProbeFinder(
        ProbeConfig(n_frames=24), UNKNOWN, guess=None, transmission=1.0, threads=1, reuse="probe"
    )
    work = stage.open(Scan(bench.second.folder))
    work.handle(bench.numbers[:8])
    assert found_probe(Scan(bench.second.folder)) is None
    bench.refine(bench.scanned.truth)
    work.handle(bench.numbers[8:])
    np.testing.assert_array_equal(found_probe(Scan(bench.second.folder)), bench.refined_probe)


def test_a_network_has_the_probe_of_the_last_scan_before_the_first_frame(bench, monkeypatch):
    monkeypatch.setattr(stream.stages.probe, "probe_from_burst", None)  # nobody searches
    stage = ProbeFinder(ProbeConfig(), UNKNOWN, guess=None, transmission=1.0, threads=1, reuse="probe")
    work = stage.open(Scan(bench.second.folder))
    np.testing.assert_array_equal(found_probe(Scan(bench.second.folder)), bench.refined_probe)
    work.handle(bench.numbers)
    work.close()
    assert Scan(bench.second.folder).count("probe", "version") == 1
