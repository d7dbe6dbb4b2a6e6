"""What the network does not know before a scan is found during it: the probe, and the material."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launch.training.evaluate import evaluation_probe
from launch.training.recipe import read_recipe
from operators.arrays import centre_origin
from operators.geometry import Geometry, window_corners
from operators.metrics.errors import nrmse
from operators.metrics.gauge import remove_gauge
from operators.optics.forward import simulate_counts
from operators.optics.samples import object_from_texture, texture
from operators.optics.trajectories import jittered_raster
from stream.files.weights import load_network
from stream.live.client import LiveReconstruction
from stream.record.probe import found_probe
from stream.record.scan import State
from stream.record.tuned_weights import version_path
from tests.helpers.letter import DETECTOR_PIXEL_M, DISTANCE_M, ENERGY_EV, ScannedSample, illuminated
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun

N_SIDE, STEP_PX, N_PIXELS = 15, 8, 64
TRAINED, UNSEEN = 0.3 + 1.2j, 0.9 + 0.3j
GEOMETRY = Geometry(
    energy_ev=ENERGY_EV,
    detector_distance_m=DISTANCE_M,
    detector_pixel_m=DETECTOR_PIXEL_M,
    n_pixels=N_PIXELS,
)


def scan(material: complex) -> ScannedSample:
    """Scan a sample of `material` with the probe of the demo's network."""
    rng = np.random.default_rng(3)
    corners = window_corners(jittered_raster(N_SIDE, N_SIDE, STEP_PX, 1.0, rng))
    corners -= corners.min(axis=0)
    rows, columns = corners.max(axis=0) + N_PIXELS
    truth = object_from_texture(texture("voronoi", (rows, columns), rng), material)
    probe = evaluation_probe(read_recipe().evaluated_with(photons_per_frame=4e5))
    return ScannedSample(
        frames=centre_origin(simulate_counts(truth, probe, corners, rng)).astype(np.uint16),
        positions_m=GEOMETRY.to_metres(corners),
        truth=truth,
        probe=probe,
        lit=illuminated(truth.shape, probe, corners),
        geometry=GEOMETRY,
    )


def n_versions(pipeline: Pipeline, series: str) -> int:
    found = pipeline.find(series)
    return 0 if found is None else found.count("finetune", "version")


def n_inferred(pipeline: Pipeline, series: str) -> int:
    return int(np.count_nonzero(pipeline.scan(series).states("inference") == State.DONE))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_weights_tuned_during_a_scan_are_taken_up_and_no_frame_is_lost(run_folder: Path) -> None:
    sample, n_before = scan(UNSEEN), 180
    settings = (
        *("network.weights=demo", "detector.silence_s=600", "positions.late_s=600", "probe.scale=false"),
        *("finetune.enabled=true", "finetune.first_frames=40", "finetune.offer_s=3", "refinement.epochs=40"),
        *("refinement.probe_step=0", "refinement.algorithm=epie"),
    )
    with Pipeline(run_folder, sample, *settings) as pipeline:

        def frames() -> Iterator[np.ndarray]:
            yield from sample.frames[:n_before]
            pipeline.until(lambda: n_versions(pipeline, "tuned") > 0, patience_s=600)
            # One by one: no frame waits for the tuned weights, which take a while to be made ready.
            for n_sent, frame in enumerate(sample.frames[n_before:], n_before):
                pipeline.until(lambda n=n_sent: n_inferred(pipeline, "tuned") == n)
                yield frame

        pipeline.publish(PositionRun("tuned", sample.positions_m).documents())
        pipeline.play_frames(frames(), "tuned", len(sample))
        outcome = pipeline.outcome("tuned")
        with LiveReconstruction(pipeline.live_address) as live:
            models = live.latest(5.0).models
    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"], outcome.figures["incomplete"]
    assert outcome.figures["models"] == dict(models)
    assert sum(models.values()) == len(sample)
    trained, *tuned = models
    card = load_network(version_path(outcome.scan, 1))[1]
    assert card.model_id == tuned[0]
    assert card.parent == trained
    assert models[trained] >= n_before
    assert card.metrics["error"] < card.metrics["before"]
    assert card.metrics["forgotten"] <= 0.1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_network_without_a_known_probe_finds_one_from_the_first_frames(run_folder: Path) -> None:
    sample = scan(TRAINED)
    settings = ("network.weights=demo", "probe.source=data", "refinement.epochs=20")
    with Pipeline(run_folder, sample, *settings) as pipeline:
        pipeline.publish(PositionRun("blind", sample.positions_m).documents())
        pipeline.play(sample, "blind", rate_hz=50)
        outcome = pipeline.outcome("blind")
    outcome.assert_accounted(recorded=len(sample))
    assert outcome.figures["is_complete"], outcome.figures["incomplete"]
    found = found_probe(outcome.scan)
    assert found is not None
    assert nrmse(remove_gauge(found[0], sample.probe[0], scale=True), sample.probe[0]).loose < 0.2
    assert outcome.result is not None
    mosaic, lit = outcome.result.maps["mosaic"], sample.lit.astype(np.float32)
    truth = sample.truth
    assert mosaic.shape == truth.shape
    assert nrmse(remove_gauge(mosaic, truth, scale=True, weights=lit), truth, lit).c < 0.25
