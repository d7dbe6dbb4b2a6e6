import numpy as np
import pytest
import torch

from operators.network.gaps import fill_gaps
from operators.network.interface import Illumination, illuminate
from tests.helpers.operators.networks import PROBE


@pytest.fixture(scope="module")
def illumination() -> Illumination:
    return illuminate(torch.from_numpy(PROBE))


@pytest.fixture(scope="module")
def open_beam(illumination: Illumination) -> torch.Tensor:
    return illumination.open_beam


def with_gap(rows: slice) -> torch.Tensor:
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[rows] = False
    return valid


@pytest.mark.parametrize("rows", [slice(5, 6), slice(4, 7), slice(0, 5)])
def test_what_was_measured_stays_and_gaps_hold_the_open_beam_as_far_as_it_came_through(
    illumination: Illumination, open_beam: torch.Tensor, rows: slice
) -> None:
    shares = torch.tensor([0.3, 0.9])[:, None, None]
    valid = with_gap(rows)
    filled = fill_gaps(shares * open_beam * valid, valid, illumination)
    torch.testing.assert_close(filled, shares * open_beam, rtol=1e-3, atol=1e-9)
    assert torch.equal(filled[:, valid], (shares * open_beam)[:, valid])


def test_what_came_through_nearby_counts_more_than_what_did_elsewhere(
    illumination: Illumination, open_beam: torch.Tensor
) -> None:
    share = torch.full((64, 64), 0.2)
    share[:, :6] = 0.8  # about the gap, which lies in the bright cone
    valid = with_gap(slice(0, 0))
    valid[:, 2:4] = False
    filled = fill_gaps(share * open_beam * valid, valid, illumination)[0]
    bright = open_beam[0] > 0.5 * open_beam.max()
    gap = bright & ~valid
    assert gap.sum() > 10
    np.testing.assert_allclose((filled / open_beam[0])[gap], 0.8, rtol=0.02)


def test_no_frames_stay_none(illumination: Illumination) -> None:
    assert fill_gaps(torch.zeros(0, 64, 64), with_gap(slice(4, 7)), illumination).shape == (0, 64, 64)


def test_a_frame_without_a_photon_stays_dark(illumination: Illumination) -> None:
    valid = with_gap(slice(4, 7))
    assert not fill_gaps(torch.zeros(1, 64, 64), valid, illumination).any()


def test_every_frame_may_have_a_detector_and_a_probe_of_its_own(illumination: Illumination) -> None:
    probes = illuminate(torch.from_numpy(np.stack([PROBE, np.roll(PROBE, 3, axis=1).conj()])))
    valid = torch.stack([with_gap(slice(1, 3)), with_gap(slice(60, 64))])
    intensities = torch.rand(2, 64, 64) * valid
    together = fill_gaps(intensities, valid, probes)
    for i in range(2):
        one = slice(i, i + 1)
        alone = fill_gaps(intensities[one], valid[one], probes.of(one))
        torch.testing.assert_close(together[one], alone)
