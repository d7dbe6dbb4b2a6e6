"""What the configuration says of detector and sample, as the preparation of a scan's frames."""

from pathlib import Path

import numpy as np
import pytest

from stream.stages.inputs import Optics
from tests.helpers.stream.scans import DETECTOR_PLANE, FRAME_SHAPE, make_scan, record


def prepared(frames: np.ndarray, **settings) -> np.ndarray:
    return Optics(DETECTOR_PLANE.changed(**settings)).preprocess_of(FRAME_SHAPE)(frames)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).poisson(50, (3, *FRAME_SHAPE)).astype(np.uint16)


def test_what_frames_have_without_beam_is_taken_from_each_wherever_it_is_known_from(tmp_path: Path, frames):
    dark = np.random.default_rng(1).poisson(4, (40, *FRAME_SHAPE)).astype(np.uint16)
    np.save(tmp_path / "one.npy", dark.mean(axis=0))
    np.save(tmp_path / "several.npy", dark)
    scan = make_scan(tmp_path, "0000-dark")
    record(scan, np.arange(40), dark)
    expected = np.maximum(frames - dark.mean(axis=0), 0).sum(axis=(1, 2))
    for known_from in ("one.npy", "several.npy", "0000-dark"):
        found = prepared(frames, dark=tmp_path / known_from)
        np.testing.assert_allclose(found.sum(axis=(1, 2)), expected, rtol=2e-3)


def test_a_flat_evens_out_what_pixels_count(tmp_path: Path, frames):
    flat = np.random.default_rng(2).uniform(0.5, 1.5, FRAME_SHAPE)
    np.save(tmp_path / "flat.npy", flat)
    uneven = np.round(1000 * flat / flat.mean()).astype(np.uint16)[None]
    assert np.ptp(prepared(uneven, flat=tmp_path / "flat.npy")) < 2


def test_a_detector_that_stands_on_its_head_is_turned(frames):
    upright, turned = prepared(frames), prepared(frames, flip_rows=True, flip_columns=True)
    np.testing.assert_array_equal(turned[:, 1:, 1:], upright[:, :0:-1, :0:-1])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("dark", np.zeros(4), "wanted counts"),
        ("dark", np.full(FRAME_SHAPE, np.nan), "wanted counts"),
        ("dark", np.zeros((3, 3)), "background has shape"),
        ("flat", np.zeros(FRAME_SHAPE), "wanted positive numbers"),
        ("flat", np.ones((3, 3)), "flat has shape"),
    ],
)
def test_what_is_no_dark_or_flat_is_refused_by_name(tmp_path: Path, frames, name, content, said):
    np.save(tmp_path / "wrong.npy", content)
    with pytest.raises(ValueError, match=said):
        prepared(frames, **{name: tmp_path / "wrong.npy"})


def test_a_folder_that_is_no_scan_and_one_without_frames_are_no_dark(tmp_path: Path, frames):
    with pytest.raises(ValueError, match="no recorded scan"):
        prepared(frames, dark=tmp_path)
    make_scan(tmp_path, "0000-dark")
    with pytest.raises(ValueError, match="has no frame"):
        prepared(frames, dark=tmp_path / "0000-dark")
