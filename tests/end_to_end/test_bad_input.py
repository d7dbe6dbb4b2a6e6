"""Bad input ends in a clear message or a counted drop: nothing recorded is lost, and scripts hear of it."""

import json
from pathlib import Path

import cbor2
import numpy as np
import pytest
import yaml

from launch.run.processes import RunFailedError
from stream.detector.dectris import encode_message
from stream.detector.simulator import ReplayConfig, series_messages
from tests.helpers.launch.commands import ptychostream
from tests.helpers.letter import ScannedSample
from tests.helpers.pipeline import Pipeline
from tests.helpers.stream.documents import PositionRun


def messages(frames: np.ndarray, series: str) -> list[bytes]:
    """The start, images and end of a series as they are on the wire."""
    config = ReplayConfig(series_uid=series)
    return [encode_message(message) for _, message in series_messages(frames, config, len(frames))]


def test_damaged_messages_are_counted_and_named_and_the_run_goes_on(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    rng = np.random.default_rng(2)
    start, *images, end = messages(sample.frames, "damaged")
    damaged = [
        b"",
        b"garbage",
        rng.bytes(4096),
        images[30][:100],  # truncated; the whole one follows
        cbor2.dumps({"type": "image", "series_id": 1}),
        cbor2.dumps({"type": "what", "series_id": 1}),
        cbor2.dumps([1, 2, 3]),
    ]
    pipeline.publish(PositionRun("damaged", sample.positions_m).documents())
    for message in [start, *images[:30], *damaged, *images[30:], end]:
        pipeline.detector.send([[message]])
    outcome = pipeline.outcome("damaged")
    outcome.assert_accounted(recorded=len(sample))
    outcome.assert_recorded_as(sample)
    assert outcome.figures["is_complete"]
    assert outcome.figures["rejected"] >= len(damaged) - 1  # an unknown type is passed over
    pipeline.until(lambda: any("messages of the detector refused" in notice for notice in pipeline.notices))


def test_frames_of_another_kind_are_named_and_the_rest_is_reconstructed(
    pipeline: Pipeline, sample: ScannedSample
) -> None:
    sent = messages(sample.frames, "kinds")  # the first is the start message
    sent[11] = messages(sample.frames[:, :16, :16], "kinds")[11]
    sent[12] = messages(sample.frames.astype(np.uint32), "kinds")[12]
    sent[21] = sent[21].replace(b"bslz4", b"bslz9")
    pipeline.publish(PositionRun("kinds", sample.positions_m).documents())
    for message in sent:
        pipeline.detector.send([[message]])
    outcome = pipeline.outcome("kinds")
    outcome.assert_accounted(recorded=97, lost=3)
    outcome.assert_recorded_as(sample)
    assert outcome.figures["incomplete"] == "could not read 3 frames (10-11, 20)"
    assert outcome.error(sample).c < 0.1


@pytest.mark.slow
def test_a_probe_of_another_size_is_refused_before_the_scan(run_folder: Path, sample: ScannedSample) -> None:
    wrong = Pipeline(run_folder, sample, probe=np.ones((1, 16, 16), np.complex64))
    with pytest.raises(RunFailedError, match=r"probe has shape \(1, 16, 16\), patterns have 32 x 32 pixels"):
        wrong.__enter__()


@pytest.mark.slow
@pytest.mark.allow_error_log
def test_an_absurd_announcement_is_refused_and_the_frames_are_recorded_all_the_same(
    run_folder: Path, sample: ScannedSample
) -> None:
    with Pipeline(run_folder, sample) as pipeline:
        pipeline.run(sample, "before").assert_recorded_as(sample)
        pipeline.run(sample, "absurd", announce=10**12).assert_recorded_as(sample)
        assert any("1000000000000" in notice for notice in pipeline.notices)


@pytest.fixture
def config_file(tmp_path: Path, sample: ScannedSample) -> Path:
    """A configuration of a detector that is not there."""
    np.save(tmp_path / "positions.npy", sample.positions_m)
    config = {
        "geometry": sample.geometry_settings,
        "detector": {"address": "tcp://127.0.0.1:9", "timeout_s": 0.5},
        "positions": {"source": "file", "path": "positions.npy", "unit": "m"},
        "live": {"address": "tcp://127.0.0.1:*"},
        "viewer": {"enabled": False},
        "save": str(tmp_path / "saved"),
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_an_unknown_key_is_named_with_the_one_that_was_meant(config_file: Path) -> None:
    done = ptychostream("run", config_file, "--set", "detector.adress=tcp://127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr == ("ptychostream: --set: detector.adress: unknown key, did you mean 'address'?\n")


@pytest.mark.parametrize("energy", ["0", "-8800", ".nan"])
def test_an_impossible_energy_is_refused(config_file: Path, energy: str) -> None:
    done = ptychostream("run", config_file, "--set", f"geometry.energy_ev={energy}")
    assert done.returncode == 2
    assert done.stderr.startswith("ptychostream: --set: geometry.energy_ev: wanted ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_detector_that_cannot_be_reached_ends_in_a_message_and_not_in_a_hang(
    config_file: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    done = ptychostream("run", config_file, "--series", "1", "--json", figures)
    assert done.returncode == 1
    assert "nothing from tcp://127.0.0.1:9 for " in done.stderr
    assert "`ptychostream check`" in done.stderr
    assert json.loads(figures.read_text())["is_complete"] is False
    checked = ptychostream("check", config_file, "--timeout", "0.2")
    assert checked.returncode == 1
    assert "tcp://127.0.0.1:9" in checked.stdout
