"""What `check` says of a configuration and what `run` refuses by are the same sentences."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from launch.config.config import DEMO_WEIGHTS
from launch.config.file import load_config
from launch.config.probe import Known
from launch.config.reading import ConfigError
from launch.run.readiness import readiness, warnings_of
from launch.run.stages import resolve
from operators.optics.probe import zone_plate_probe
from operators.optics.trajectories import raster
from stream.wire.keys import create_keys
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.launch.commands import free_address
from tests.helpers.launch.runs import TRAINED_PROBE

ZEROS = np.zeros((1, 64, 64), np.complex64)
GOOD = {
    "geometry": {
        "energy_ev": 8800,
        "detector_distance_m": 1.92,
        "detector_pixel_m": 75e-6,
        "n_pixels": 64,
        "mask": "mask.npy",
    },
    "detector": {"address": "tcp://127.0.0.1:31001", "frame_shape": [80, 90]},
    "positions": {"source": "file", "path": "positions.csv", "unit": "um"},
    "probe": TRAINED_PROBE,
    "network": {"weights": "demo"},
    "live": {"address": "tcp://127.0.0.1:*"},
    "viewer": {"port": 0},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "mask.npy", np.ones((80, 90), bool))
    np.save(tmp_path / "all-masked.npy", np.zeros((80, 90), bool))
    np.save(tmp_path / "other-mask.npy", np.ones((514, 514), bool))
    np.save(tmp_path / "probe-of-zeros.npy", ZEROS)
    np.save(tmp_path / "probe-of-nan.npy", ZEROS * np.nan)
    np.save(tmp_path / "probe-of-128.npy", np.ones((1, 128, 128), np.complex64))
    np.save(tmp_path / "real.npy", np.ones((64, 64)))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "empty.npy").touch()
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    positions_um = raster(12, 12, 0.3)
    np.savetxt(tmp_path / "positions.csv", positions_um, delimiter=",")
    np.savetxt(tmp_path / "near.csv", raster(12, 12, 0.0014), delimiter=",")
    np.savetxt(tmp_path / "same.csv", 0 * positions_um, delimiter=",")
    np.savetxt(tmp_path / "one.csv", positions_um[:1], delimiter=",")
    np.savetxt(tmp_path / "three.csv", np.ones((4, 3)), delimiter=",")
    (tmp_path / "text.csv").write_text("y,x\nfast,slow\n")
    (tmp_path / "configuration.yaml").write_text(yaml.safe_dump(GOOD))
    return tmp_path


def configured(folder: Path, *changes: str) -> Known:
    return Known(load_config(folder / "configuration.yaml", overrides=changes))


def probe(file: str) -> str:
    return f"probe={{source: file, path: {file}}}"


def test_a_good_configuration_passes_both(folder):
    known = configured(folder)
    findings = list(readiness(known))
    assert {finding.result for finding in findings} == {"OK"}
    assert warnings_of(known) == []
    details = {finding.what: finding.detail for finding in findings}
    assert details["object pixel"] == "56.36 nm"
    assert details["overlap"] == "81%"
    assert details["frames"] == "80 x 90 pixels, 0.0% masked"
    assert details["positions"] == f"144 in {folder}/positions.csv"


@pytest.mark.parametrize(
    ("changes", "what", "complaint"),
    [
        (["geometry.energy_ev=9"], "energy", "did you mean 9 keV (geometry.energy_ev: 9000)?"),
        (["geometry.detector_pixel_m=75"], "detector pixel", "It looks like micrometres"),
        (
            ["geometry.n_pixels=100000"],
            "memory",
            "n_pixels 100000 x binning 1 need frames of 100000 x 100000",
        ),
        (["geometry.n_pixels=128"], "frames", "128 pixels of 1 x 1 around (40, 45) need rows -24..103"),
        (["geometry.mask=other-mask.npy"], "frames", "other-mask.npy has shape (514, 514), wanted (80, 90)"),
        (["geometry.mask=all-masked.npy"], "frames", "all-masked.npy leaves no valid pixel in the patterns"),
        (["geometry.mask=objects.npy"], "frames", "objects.npy: wanted a .npy file as numpy.save writes it"),
        (["geometry.mask=empty.npy"], "frames", "empty.npy: wanted a .npy file as numpy.save writes it"),
        (["geometry.mask=."], "frames", ": wanted a .npy file as numpy.save writes it: Is a directory"),
        ([probe("probe-of-nan.npy")], "probe", "of-nan.npy: the probe holds values that are not finite"),
        ([probe("probe-of-zeros.npy")], "probe", "of-zeros.npy: the probe holds only zeros"),
        ([probe("probe-of-128.npy")], "probe", "has shape (1, 128, 128), patterns have 64 x 64 pixels"),
        ([probe("real.npy")], "probe", "wanted a complex probe (mode, y, x), found float64"),
        ([probe("empty.npy")], "probe", "empty.npy: wanted a .npy file"),
        (["probe.pupil_radius_px=40"], "probe", "zone plate: expected 0 < pupil_radius_px <= 32"),
        (["positions.unit=m"], "object memory", "check the unit of the positions and the geometry"),
        (["positions.unit=m"], "positions", "144 of 144 lie more than 1 mm from the middle"),
        (["positions.path=same.csv"], "overlap", "all 144 positions are the same"),
        (["positions.path=one.csv"], "overlap", "one frame has a position"),
        (["positions.path=three.csv"], "positions", "found 3 columns: say which are y and x"),
        (["positions.path=text.csv"], "positions", "text.csv: wanted positions as numbers, .npy or text"),
        (["geometry.n_pixels=32"], "network", "takes patterns of 64 x 64 pixels, geometry.n_pixels is 32"),
        (["network.weights=weights.safetensors"], "network", "weights.safetensors is no file of weights"),
        (
            ["probe.n_modes=500000"],
            "memory",
            "lower probe.n_modes, geometry.n_pixels or refinement.batch",
        ),
        (["refinement.device=cupy"], "refinement", "CuPy"),
        (["live.address=ipc:///no/such/folder/live"], "live", "cannot bind ipc:///no/such/folder/live"),
        (["viewer.host=no.such.host.invalid", "viewer.insecure=true"], "viewer", "cannot serve the page at"),
        (["viewer.metrics_token=empty.npy"], "viewer", "empty.npy holds no token: wanted one word"),
        (["viewer.steering_token=empty.npy"], "viewer", "viewer.steering_token: "),
        (
            ["detector.address=tcp://no.such.host.invalid:1", "detector.insecure=true"],
            "detector",
            "is not known",
        ),
        (["detector.key=mask.npy", "detector.peers=mask.npy"], "detector", "cannot use the CURVE keys"),
        (["save=mask.npy/below"], "save", "cannot be written to"),
        (["store={enabled: true, path: mask.npy/below}"], "store", "cannot be written to"),
    ],
)
def test_what_cannot_work_is_found_and_refused_with_the_same_sentence(folder, changes, what, complaint):
    known = configured(folder, *changes)
    details = [finding.detail for finding in readiness(known) if finding.is_failure and finding.what == what]
    assert any(complaint in detail for detail in details), details
    with pytest.raises(ConfigError) as refused:
        warnings_of(known)
    assert any(line.endswith(detail) for detail in details for line in str(refused.value).splitlines())


@pytest.mark.parametrize(
    ("change", "what", "warning"),
    [
        ("probe.photons=100", "network", "the network was trained for 8e+03 to 2e+06 photons"),
        (
            "geometry.detector_distance_m=0.009",
            "distance",
            "distance is 9 mm, expected 10 mm to 50 m (geometry.detector_distance_m)",
        ),
        (
            "viewer={port: 0, host: 0.0.0.0, insecure: true}",
            "viewer",
            "everybody who reaches 0.0.0.0:0 may see",
        ),
        (
            "positions.folders=[absent]",
            "positions",
            "absent here: files that documents name in it are not found",
        ),
        ("positions.root_map={/data: absent}", "positions", "there is no folder "),
        ("positions.field_m=1.6e-6", "positions", "44 of 144 lie more than 1.6 µm from the middle"),
    ],
)
def test_what_is_unlikely_is_a_warning_and_a_run_begins(folder, change, what, warning):
    # as near to each other as the pixels that such a distance makes
    near = ["positions.path=near.csv"] if "distance" in change else []
    known = configured(folder, change, *near)
    warnings = [finding.detail for finding in warnings_of(known) if finding.what == what]
    assert any(warning in text for text in warnings), warnings


def test_each_file_is_read_once_and_one_that_cannot_be_read_is_complained_of_once(folder, monkeypatch):
    from launch.config import probe as of_probe
    from stream.documents import position_file as of_positions

    read: list[str] = []
    for module, name in ((of_probe, "read_probe"), (of_positions, "load_positions")):
        function = getattr(module, name)

        def reading(path, *arguments, function=function):
            read.append(path.name)
            return function(path, *arguments)

        monkeypatch.setattr(module, name, reading)
    np.save(folder / "probe.npy", zone_plate_probe(64, 12, 14)[None] * 630)
    known = configured(folder, probe("probe.npy"))
    assert warnings_of(known) == []
    resolve(known.config, known)
    assert sorted(read) == ["positions.csv", "probe.npy"]

    for bad in (probe("real.npy"), "positions.path=text.csv"):
        failures = [finding for finding in readiness(configured(folder, bad)) if finding.is_failure]
        assert len(failures) == 1, failures


def test_an_address_that_is_taken_or_named_twice_is_refused(folder):
    with Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as other:
        taken = configured(folder, f"live.address={other.address}")
        with pytest.raises(ConfigError, match=f"live: cannot bind {other.address}: Address already in use"):
            warnings_of(taken)
    free = free_address()
    twice = configured(folder, f"live.address={free}", f"viewer.port={free.rpartition(':')[2]}")
    with pytest.raises(ConfigError, match="viewer: cannot serve the page"):
        warnings_of(twice)


def test_a_secret_key_that_others_can_read_is_a_warning(folder):
    (folder / "clients").mkdir()
    key = create_keys(folder, "ours")
    known = configured(folder, f"live.key={key}", f"live.peers={folder / 'clients'}")
    assert warnings_of(known) == []
    key.chmod(0o640)
    [warning] = warnings_of(known)
    assert warning.what == "live"
    assert warning.detail.startswith(f"other users of this computer can read the secret key {key}: chmod 600")


def test_a_folder_that_another_run_writes_to_is_refused(folder):
    from launch.run.claims import claim

    known = configured(folder)
    with open(claim(known.config.save)), pytest.raises(ConfigError, match="save: another run is writing to"):  # noqa: PTH123
        warnings_of(known)


def test_what_a_store_needs_and_is_not_installed_is_named(folder, monkeypatch):
    from launch.run import surroundings

    monkeypatch.setattr(surroundings, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match=r"store: .* is missing: needs the extra 'beamline': pip install"):
        warnings_of(configured(folder, "store.enabled=true"))


def test_pvs_need_their_extra_and_others_who_see_them_are_a_warning(folder, monkeypatch):
    from launch.run import surroundings

    known = configured(folder, "pva={enabled: true, host: 0.0.0.0, insecure: true}")
    assert [warning.detail for warning in warnings_of(known)] == [
        "everybody who reaches 0.0.0.0 may see the image: PVs have no password"
    ]
    monkeypatch.setattr(surroundings, "find_spec", lambda module: None)
    with pytest.raises(ConfigError, match="pvs: p4p is missing: needs the extra 'pva': pip install"):
        warnings_of(known)


def test_run_refuses_before_any_process_is_started(folder, call, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    file = str(folder / "configuration.yaml")
    status, out, err = call("run", file, "--set", "geometry.energy_ev=9", "--set", f"save={folder}/here")
    assert (status, out) == (2, "")
    assert err.startswith("ptychostream: energy is 9 eV, expected 50 eV to 200 keV; did you mean")
    assert err.count("\n") == 1
    assert not (folder / "here").exists()
    assert DEMO_WEIGHTS.exists()
