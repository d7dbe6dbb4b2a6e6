from pathlib import Path

import numpy as np
import pytest

from launch.config.probe import Known
from launch.run.training_range import outside_of_training
from operators.optics.probe import with_power, zone_plate_probe
from tests.helpers.launch.runs import TRAINED_PROBE, make_config


def with_probe(save: Path, **changes) -> Known:
    return with_network(save, TRAINED_PROBE | changes)


def with_network(save: Path, probe: dict) -> Known:
    return Known(make_config(save, network={"weights": "demo"}, probe=probe))


def test_a_probe_that_the_network_was_trained_for_raises_no_doubt(tmp_path):
    for photons in (8e3, 4e5, 2e6):
        assert outside_of_training(with_probe(tmp_path, photons=photons)) == []


@pytest.mark.parametrize("photons", [7e3, 3e6])
def test_photons_outside_of_the_trained_range_are_named(tmp_path, photons):
    (said,) = outside_of_training(with_probe(tmp_path, photons=photons))
    assert said.startswith(
        f"the network was trained for 8e+03 to 2e+06 photons a frame, the probe has {photons:.3g}: expect"
    )


def test_a_file_is_judged_by_its_power_unless_its_photons_are_given(tmp_path):
    probe = with_power(zone_plate_probe(64, 12, 14)[None], 1.0)
    np.save(tmp_path / "probe.npy", np.concatenate([probe, probe]))
    file = {"source": "file", "path": tmp_path / "probe.npy"}
    (said,) = outside_of_training(with_network(tmp_path, file))
    assert "the probe has 2:" in said
    assert not outside_of_training(with_network(tmp_path, file | {"photons": 4e5}))


def test_radii_of_a_computed_probe_are_compared_and_those_of_a_guess_are_not(tmp_path):
    (said,) = outside_of_training(with_probe(tmp_path, disc_radius_px=20))
    assert said.startswith("the network was trained for a disc_radius_px of 12.6 to 15.4, the probe has 20:")
    assert not outside_of_training(with_probe(tmp_path, disc_radius_px=20, is_guess=True))


def test_nothing_is_said_of_a_probe_that_is_not_known_yet_or_that_no_network_gets(tmp_path):
    assert not outside_of_training(with_network(tmp_path, {"source": "data"}))
    assert not outside_of_training(Known(make_config(tmp_path, probe=TRAINED_PROBE | {"photons": 1.0})))
