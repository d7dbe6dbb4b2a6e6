"""What the page reads from the record of a scan: probe, pattern and model, curves."""

import numpy as np
import pytest

from launch.config.run_file import PROBE_FILE
from launch.page.scans import records
from launch.page.scans.curves import curves_of
from launch.page.scans.packet import encode_arrays, summed
from launch.page.scans.pattern_view import pattern_packet
from launch.page.scans.probe_view import probe_of, probe_packet
from launch.page.scans.records import NotThereError, ScanRecords
from operators.arrays import abs2, centre_origin
from operators.metrics.errors import FRC
from operators.optics.forward import forward_residual, intensities
from stream.record.probe import publish_probe
from tests.helpers.launch.saved_scans import SavedScans, decode_arrays
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.scans import DETECTOR_PLANE, infer


@pytest.fixture
def saved(tmp_path):
    return SavedScans(tmp_path)


def record_of(saved, name="newest"):
    return ScanRecords(saved.save, saved.run.run_id).open(name)


def test_arrays_come_as_they_left():
    values = np.arange(6).reshape(2, 3) / 7
    header, arrays = decode_arrays(encode_arrays({"words": "µ"}, {"a": values, "b": values[:, 0]}))
    assert header["words"] == "µ"
    np.testing.assert_array_equal(arrays["a"], values.astype(np.float32))
    assert arrays["b"].shape == (2,)


def test_a_large_pattern_is_summed_over_squares():
    summed_up, factor = summed(np.ones((1, 7, 6)), 3)
    assert (factor, summed_up.shape) == (3, (1, 2, 2))
    assert (summed_up == 9).all()


def test_the_probe_is_followed_from_the_guess_to_the_refined_one(tmp_path):
    network = {"network": {"weights": tmp_path / "w"}, "probe": {"source": "data", "n_frames": 24}}
    (tmp_path / "w").touch()
    saved = SavedScans(tmp_path, **network)
    scan, record = saved.begin(), record_of(saved)
    with pytest.raises(NotThereError, match="not known yet: 0 of 24 frames are there"):
        probe_packet(record, "")
    np.save(saved.run.folder / PROBE_FILE, saved.sample.probe)
    keys = []
    for step in (
        lambda: None,
        lambda: publish_probe(scan, 2 * saved.sample.probe),
        lambda: (saved.record(scan, saved.numbers), saved.refine(scan, saved.numbers)),
    ):
        step()
        header, _ = decode_arrays(probe_packet(record, ""))
        keys.append(header["key"])
        assert probe_packet(record, keys[-1]) is None, "nothing new"
    assert keys == ["0000-a guess", "0000-a found-1", "0000-a refined-1"]


def test_modes_come_strongest_first_with_their_share_of_the_power_and_the_scale(saved):
    weak = saved.sample.probe[0] / 2
    np.save(saved.run.folder / PROBE_FILE, np.stack([weak, saved.sample.probe[0]]))
    saved.begin()
    header, arrays = decode_arrays(probe_packet(record_of(saved), ""))
    assert header["shares"] == pytest.approx([0.8, 0.2])
    assert header["photons"] == pytest.approx(1.25 * abs2(saved.sample.probe).sum(), rel=1e-5)
    assert header["pixel_m"] == record_of(saved).optics.geometry.object_pixel_m
    np.testing.assert_allclose(arrays["amplitude"][0], np.abs(saved.sample.probe[0]), rtol=1e-5)
    assert arrays["phase"].shape == arrays["amplitude"].shape


def test_the_model_of_the_newest_frame_in_the_picture_is_that_of_the_operators(saved):
    scan = saved.begin()
    saved.record(scan, saved.numbers)
    saved.refine(scan, saved.numbers[:20])
    header, arrays = decode_arrays(pattern_packet(record_of(saved)))
    assert (header["frame"], header["newest"]) == (19, 35), "the newest that is in the picture"
    expected = intensities(saved.sample.probe, saved.sample.patches[19:20])
    np.testing.assert_allclose(arrays["model"], centre_origin(expected)[0], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(arrays["measured"], centre_origin(saved.patterns[19]))
    error = forward_residual(
        saved.patterns[19:20].astype(np.float32), saved.sample.probe, saved.sample.patches[19:20]
    )
    assert header["error"] == pytest.approx(float(error[0]), rel=1e-2)
    assert header["error"] == pytest.approx(header["noise"], rel=0.3), "nothing but noise is left"
    np.testing.assert_allclose(header["centre_px"], saved.sample.corners[19] + 8)


def test_a_frame_that_is_not_in_the_picture_yet_comes_without_a_model(saved):
    scan = saved.begin()
    with pytest.raises(NotThereError, match="no frame has been recorded yet"):
        pattern_packet(record_of(saved))
    saved.record(scan, saved.numbers)
    header, arrays = decode_arrays(pattern_packet(record_of(saved)))
    assert (header["frame"], list(arrays)) == (35, ["measured"])
    assert "on its way into the picture" in header["words"]
    saved.refine(scan, saved.numbers[:20])
    assert list(decode_arrays(pattern_packet(record_of(saved), 30))[1]) == ["measured"]
    with pytest.raises(NotThereError, match="frame 36 of 0000-a is not recorded; the newest is 35"):
        pattern_packet(record_of(saved), 36)


def test_before_anything_is_refined_the_model_is_of_the_networks_patch(saved):
    scan = saved.begin()
    saved.record(scan, saved.numbers)
    infer(scan, saved.numbers[:5], saved.sample.patches[:5])
    saved.know_probe()
    header, arrays = decode_arrays(pattern_packet(record_of(saved)))
    assert header["frame"] == 4
    assert "the network's patch" in header["words"]
    expected = intensities(saved.sample.probe, saved.sample.patches[4:5])
    np.testing.assert_allclose(arrays["model"], centre_origin(expected)[0], rtol=1e-3, atol=1e-3)


def test_masked_pixels_are_not_numbers_and_photons_are_counted_on_the_others(tmp_path):
    mask = np.ones((16, 16), bool)
    mask[8, 8] = False
    np.save(tmp_path / "mask.npy", mask)
    saved = SavedScans(tmp_path, geometry=DETECTOR_PLANE.changed(mask=tmp_path / "mask.npy"))
    saved.record(saved.begin(), saved.numbers)
    header, arrays = decode_arrays(pattern_packet(record_of(saved), 3))
    measured = arrays["measured"]
    np.testing.assert_array_equal(np.isnan(measured), ~mask)
    assert header["photons"] == np.nansum(measured) == saved.patterns[3].sum() - saved.patterns[3][0, 0]


def test_the_error_is_told_epoch_by_epoch_from_the_first_frame_on(saved):
    scan = saved.begin()
    assert curves_of(record_of(saved))["error"] == {"why": "no epoch of refinement has ended yet"}
    saved.record(scan, saved.numbers)
    saved.refine(scan, saved.numbers)
    assert curves_of(record_of(saved))["error"] == {
        "epoch": [1.0, 2.0],
        "error": [0.5, 0.25],
        "n_frames": [36, 36],
        "time_s": [2.0, 4.0],
    }
    assert "with the result" in curves_of(record_of(saved))["frc"]["why"]
    saved.end(scan, resolution_unknown="not measured: a scan had begun")
    assert curves_of(record_of(saved))["frc"]["why"] == "not measured: a scan had begun"
    scan.counters("recorder", writable=True)["closed"] = 0
    assert curves_of(record_of(saved))["frc"]["why"].startswith("being measured")


def test_the_correlation_of_halves_comes_with_its_threshold_and_the_resolution(saved):
    halves = FRC(
        frequency=np.linspace(0, 0.5, 11), correlation=np.linspace(1, 0, 11), n_pixels=np.arange(1, 12) * 6
    )
    saved.whole(halves=halves)
    frc = curves_of(record_of(saved))["frc"]
    assert frc["frequency"] == halves.frequency.tolist()
    assert frc["half_bit"] == halves.half_bit.tolist()
    assert frc["resolution_m"] == pytest.approx(frc["pixel_m"] / (2 * halves.crossing(halves.half_bit)))


def test_who_looks_at_the_probe_does_not_wait_for_the_object(saved, monkeypatch):
    monkeypatch.delattr(records, "read_snapshot")
    scan = saved.begin()
    record = record_of(saved, scan.name)
    saved.refine(scan, saved.numbers)
    first = probe_of(record)
    assert first.words.startswith("refined with the object, epoch")
    saved.refine(scan, saved.numbers)
    assert probe_of(record).version != first.version


def test_a_large_object_that_changes_is_not_read_at_every_question(saved, monkeypatch):
    clock, reads = Clock(), []

    def slowly(folder):
        reads.append(clock.now)
        clock.now += 3.0
        return None

    monkeypatch.setattr(records, "read_snapshot", slowly)
    scan = saved.begin()
    record = ScanRecords(saved.save, clock=clock).open(scan.name)
    for _ in range(100):
        saved.refine(scan, saved.numbers)
        record.snapshot()
        clock.now += 1.0
    assert len(reads) <= 4, "a tenth of 100 s, at 3 s each"
