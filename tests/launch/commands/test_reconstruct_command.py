import io
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import h5py
import numpy as np
import pytest
from rich.console import Console

from launch.beamline.simulation import Simulation, simulate_scan
from launch.commands.reconstruct import reconstruct_file
from launch.commands.simulate import write_scan
from launch.offline.recorded import RecordedScan
from launch.offline.task import ReconstructOptions, options_for
from launch.results.cxi import read_result
from launch.results.report import write_page
from operators.engine.config import RefinerConfig
from stream.record.events import Event
from tests.helpers.launch.runs import make_config


@pytest.fixture
def simulated(tmp_path):
    path = tmp_path / "simulated.cxi"
    write_scan(path, simulate_scan(Simulation(n_rows=5, n_columns=6)), "test")
    return path


def test_a_reconstruction_leaves_result_picture_and_figures(simulated, tmp_path):
    output, figures_file = tmp_path / "result.cxi", tmp_path / "figures.json"
    printed = io.StringIO()
    figures = reconstruct_file(
        str(simulated),
        lambda scan: ReconstructOptions(epochs=5.0),
        output=output,
        json_file=figures_file,
        console=Console(file=printed, width=200),
    )
    result = read_result(output)
    assert figures["frames"] == len(result.frame_numbers) == 30
    assert np.isfinite(result.object).all()
    assert figures["error"] == pytest.approx(result.error_history[-1])
    assert (tmp_path / "result-report.png").read_bytes().startswith(b"\x89PNG")
    assert output.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "result-report.html").read_text()
    assert page.count("data:image/png;base64,") == page.count("<img") == 5
    assert f"amplitude error {figures['error']:.4f}" in page
    assert "http" not in page, "everything is inside"
    assert json.loads(figures_file.read_text())["error"] == pytest.approx(figures["error"])
    assert f"{figures['error']:.4f} after 5 epochs" in printed.getvalue()


def test_the_result_says_how_it_was_made_and_how_it_converged(simulated, undrawn, tmp_path):
    output = tmp_path / "result.cxi"
    options = ReconstructOptions(epochs=3.0, refiner=RefinerConfig(seed=5))
    reconstruct_file(str(simulated), lambda scan: options, output=output, console=Console(file=io.StringIO()))
    with h5py.File(output) as file:
        process = file["entry_1/process_1"]
        assert process["version"].asstr()[()] == version("ptychostream")
        assert process["algorithm"].asstr()[()] == "rpie"
        assert (process["epochs"][()], process["seed"][()], process["tiles"][()]) == (3.0, 5, 1)
        assert process["scan"].asstr()[()] == "simulated"
        history = process["error_history"][...]
    assert len(history) == 4
    assert history[-1] < history[0]


@pytest.mark.slow
def test_a_page_shows_halves_and_moved_positions_and_escapes_what_users_wrote(simulated, tmp_path):
    output = tmp_path / "<b>.cxi"
    options = ReconstructOptions(epochs=5.0, refiner=RefinerConfig(refines_positions=True))
    figures = reconstruct_file(
        str(simulated),
        lambda scan: options,
        output=output,
        correlates_halves=True,
        console=Console(file=io.StringIO()),
    )
    page = Path(figures["report"]).read_text()
    assert "<h2>Resolution</h2>" in page
    assert page.count("<img") == 5
    killed = Event(time_s=0.0, level="warning", source="inference", text="was killed by <signal 9>")
    write_page(tmp_path / "page.html", read_result(output), figures | {"scan": "<b>&"}, events=[killed])
    page = (tmp_path / "page.html").read_text()
    assert "<title>&lt;b&gt;&amp;</title>" in page
    assert "<td>inference: was killed by &lt;signal 9&gt;</td>" in page


def test_halves_share_no_frame(simulated, undrawn, tmp_path):
    numbers = []
    for offset in (0, 1):
        output = tmp_path / f"{offset}.cxi"
        options = ReconstructOptions(epochs=1.0, every=2, offset=offset)
        reconstruct_file(
            str(simulated), lambda scan, it=options: it, output=output, console=Console(file=io.StringIO())
        )
        numbers.append(read_result(output).frame_numbers.tolist())
    assert numbers == [list(range(0, 30, 2)), list(range(1, 30, 2))]


def reconstructed(simulated, output, **options):
    """The figures of a short reconstruction, and what the command says."""
    printed = io.StringIO()
    figures = reconstruct_file(
        str(simulated),
        lambda scan: ReconstructOptions(epochs=3.0),
        output=output,
        console=Console(file=printed, width=200),
        **options,
    )
    return figures, printed.getvalue()


def test_a_quick_reconstruction_says_its_resolution_without_being_asked(simulated, undrawn, tmp_path):
    figures, said = reconstructed(simulated, tmp_path / "result.cxi")
    assert 0 < figures["frc_half_cycles_per_px"] <= figures["frc_one_seventh_cycles_per_px"] <= 0.5
    result = read_result(tmp_path / "result.cxi")
    halves, pixel_m = result.halves, result.geometry.object_pixel_m
    crossing = halves.crossing(halves.half_bit)
    assert figures["frc_half_bit_cycles_per_px"] == pytest.approx(crossing)
    assert figures["resolution_m"] == pytest.approx(pixel_m / (2 * crossing))
    assert f"{1e9 * figures['resolution_m']:.3g} nm" in said


def test_halves_are_left_out_where_they_take_long_or_are_not_wanted(
    simulated, undrawn, tmp_path, monkeypatch
):
    figures, said = reconstructed(simulated, tmp_path / "no.cxi", correlates_halves=False)
    assert "resolution_m" not in figures
    assert "--frc" in said
    monkeypatch.setattr("launch.commands.reconstruct.CHEAP_S", 0.0)
    figures, _ = reconstructed(simulated, tmp_path / "long.cxi")
    assert "resolution_m" not in figures
    figures, _ = reconstructed(simulated, tmp_path / "asked.cxi", correlates_halves=True)
    assert figures["resolution_m"] > 0


def test_a_product_of_ptychodus_is_written_beside_the_result(simulated, undrawn, tmp_path):
    figures, said = reconstructed(
        simulated, tmp_path / "a.cxi", product=tmp_path / "p.h5", correlates_halves=False
    )
    result = read_result(tmp_path / "a.cxi")
    with h5py.File(tmp_path / "p.h5") as file:
        np.testing.assert_array_equal(file["object"][0], result.object)
        assert file["loss_values"][-1] == figures["error"]
    assert str(tmp_path / "p.h5") in said


def test_what_is_not_chosen_is_as_in_the_run_that_recorded_the_scan(tmp_path):
    run = make_config(
        tmp_path,
        probe={"n_modes": 2, "scale": False},
        refinement={"algorithm": "epie", "probe_step": 0.25, "epochs": 70},
    )
    scan = RecordedScan(
        frames=np.zeros((1, 64, 64), np.uint16),
        frame_numbers=np.zeros(1, np.int64),
        positions_m=np.zeros((1, 2)),
        geometry=None,
        probe=None,
        mask=None,
        name="scan",
        trusts_probe=True,
        config=run,
    )
    options = options_for(scan, {"algorithm": "rpie", "seed": None}, epochs=5.0, n_modes=None)
    assert options.refiner.algorithm == "rpie" and options.refiner.probe_step == 0.25
    assert (options.epochs, options.n_modes, options.probe, options.scale_probe) == (5.0, 2, "data", False)
    alone = options_for(replace(scan, config=None, trusts_probe=False), {}, epochs=None)
    assert alone == ReconstructOptions(refiner=RefinerConfig())
