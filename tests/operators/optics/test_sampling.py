import numpy as np
import pytest

from operators.geometry import Geometry
from operators.optics.probe import with_power, zone_plate_probe
from operators.optics.sampling import (
    Judgement,
    judge_geometry,
    judge_positions,
    judge_probe,
    readable,
    roughly,
)
from operators.optics.trajectories import raster

GEOMETRY = Geometry(energy_ev=8800, detector_distance_m=1.92, detector_pixel_m=75e-6, n_pixels=64)
PROBE = with_power(zone_plate_probe(64, 12, 14)[None], 4e5)
PX = GEOMETRY.object_pixel_m


def doubts(judgements: list[Judgement]) -> dict[str, tuple[str, str]]:
    return {judged.quantity: (judged.verdict, judged.doubt) for judged in judgements if judged.doubt}


def told(**changes) -> dict[str, tuple[str, str]]:
    fields = {name: getattr(GEOMETRY, name) for name in Geometry.__slots__}
    return doubts(judge_geometry(Geometry(**fields | changes)))


def test_a_measurement_that_can_be_is_not_doubted():
    judgements = [
        *judge_geometry(GEOMETRY),
        *judge_probe(PROBE, GEOMETRY),
        *judge_positions(raster(25, 25, 5 * PX), GEOMETRY, diameter_m=28 * PX, memory_bytes=1e9),
    ]
    assert {judged.quantity: judged.text for judged in judgements} == {
        "energy": "8.8 keV",
        "distance": "1.92 m",
        "detector pixel": "75 µm",
        "object pixel": "56.36 nm",
        "window": "3.607 µm",
        "photons per frame": "4e+05",
        "probe diameter": "1.58 µm",
        "oversampling": "2.28",
        "overlap": "82%",
        "scan field": "6.76 µm",
        "object memory": "271 kB",
    }
    assert doubts(judgements) == {}
    assert all(judged.verdict == "plausible" for judged in judgements)


@pytest.mark.parametrize(
    ("changes", "quantity", "meant"),
    [
        ({"energy_ev": 9}, "energy", "did you mean 9 keV (energy_ev: 9000)? It looks like keV"),
        ({"energy_ev": 1.4e-15}, "energy", "It looks like joules"),
        (
            {"detector_distance_m": 1920},
            "distance",
            "did you mean 1.92 m (detector_distance_m: 1.92)? It looks like millimetres",
        ),
        (
            {"detector_pixel_m": 75},
            "detector pixel",
            "did you mean 75 µm (detector_pixel_m: 7.5e-05)? It looks like micrometres",
        ),
        ({"detector_pixel_m": 0.075}, "detector pixel", "It looks like millimetres"),
    ],
)
def test_a_wrong_unit_is_impossible_and_the_likely_mistake_is_named(changes, quantity, meant):
    verdict, doubt = told(**changes)[quantity]
    assert verdict == "impossible"
    assert doubt.endswith(meant)


def test_what_is_rare_is_doubted_and_not_refused():
    verdict, doubt = told(energy_ev=250e3)["energy"]
    assert (verdict, doubt) == ("doubtful", "energy is 250 keV, expected 50 eV to 200 keV (energy_ev)")


def test_an_object_pixel_says_what_it_comes_from():
    verdict, doubt = told(detector_distance_m=40, detector_pixel_m=2e-6)["object pixel"]
    assert verdict == "doubtful"
    assert doubt.endswith("it comes from 64 detector pixels of 2 µm at 40 m and 8.8 keV")


def test_no_object_pixel_is_much_finer_than_the_wavelength():
    assert told(detector_distance_m=0.002)["object pixel"][0] == "doubtful"
    assert told(n_pixels=1_000_000)["object pixel"][0] == "impossible"


@pytest.mark.parametrize(("factor", "held"), [(0, "only zeros"), (np.nan, "values that are not finite")])
def test_a_probe_without_light_is_impossible(factor, held):
    verdict, doubt = doubts(judge_probe(factor * PROBE, GEOMETRY))["photons per frame"]
    assert verdict == "impossible"
    assert held in doubt


def test_a_probe_that_fills_its_window_is_doubted():
    verdict, doubt = doubts(judge_probe(np.ones((1, 64, 64), np.complex64), GEOMETRY))["oversampling"]
    assert verdict == "doubtful"
    assert "oversampling is 0.93, expected 2 or more" in doubt


def test_positions_too_far_apart_to_overlap_are_impossible():
    verdict, doubt = doubts(judge_positions(raster(3, 3, 0.3), GEOMETRY, diameter_m=1.6e-6))["overlap"]
    assert verdict == "impossible"
    assert "300 mm apart, the probe is 1.6 µm wide" in doubt
    assert doubt.endswith("(a millionth as far it would fit)")


def test_the_window_judges_where_the_probe_is_not_known():
    dense, apart = raster(3, 3, 0.01 * PX), raster(3, 3, 65 * PX)
    assert doubts(judge_positions(dense, GEOMETRY)) == {}
    assert "the window is 3.607 µm wide" in doubts(judge_positions(apart, GEOMETRY))["overlap"][1]
    assert doubts(judge_positions(dense, GEOMETRY, diameter_m=28 * PX))["overlap"][0] == "doubtful"


@pytest.mark.parametrize(
    ("positions_m", "said"),
    [
        (np.zeros((1, 2)), "one frame has a position"),
        (np.zeros((5, 2)), "all 5 positions are the same"),
        (np.full((5, 2), np.nan), "no frame has a position"),
    ],
)
def test_without_neighbours_nothing_can_come(positions_m, said):
    verdict, doubt = doubts(judge_positions(positions_m, GEOMETRY))["overlap"]
    assert verdict == "impossible"
    assert doubt.startswith(said)


def test_an_object_that_does_not_fit_the_memory_is_impossible():
    judgements = judge_positions(raster(25, 25, 5.0), GEOMETRY, memory_bytes=8e9)
    verdict, doubt = doubts(judgements)["object memory"]
    assert verdict == "impossible"
    assert (
        "over 120 m x 120 m, in object pixels of 56.36 nm an object of 36.3 EB, and 8 GB are there" in doubt
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(8.8e3, "8.8 keV"), (1000, "1 keV"), (999.96, "1 keV"), (0, "0 eV"), (5e-7, "500 neV")],
)
def test_values_have_a_prefix(value, text):
    assert readable(value, "eV") == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0"),
        (12, "12"),
        (857, "about 860"),
        (998_313, "about 1 million"),
        (986_544, "about 990 thousand"),
        (3_854_449, "about 3.9 million"),
        (4.2e13, "about 42 trillion"),
    ],
)
def test_counts_are_rounded_to_what_they_mean(n, text):
    assert roughly(n) == text
