import urllib.request
from pathlib import Path

import numpy as np
import pytest

from launch.config.config import DEMO_WEIGHTS, Config
from launch.config.probe import model_id
from launch.config.run_file import PROBE_FILE, ResolvedRun, StageSpec, new_run, optics
from launch.run import stages
from launch.run.processes import RunFailedError
from launch.run.stages import (
    dispatcher,
    finetune,
    finisher,
    lent_refinement,
    nice_for,
    positions,
    probe,
    refinement,
    resolve,
    stages_of,
    stitcher,
    subscriber,
)
from launch.run.supervisor import Supervisor
from stream.files.probe import read_probe
from stream.record.tuned_weights import ensemble_id
from stream.remote.refinement.lent import LentRefinement
from stream.stages.config import RefinementConfig
from stream.stages.inference.dispatcher import Dispatcher
from stream.stages.inputs import load_probe
from stream.stages.stage import Worker
from stream.wire.sockets import Endpoint, Socket
from tests.helpers.launch.runs import TRAINED_PROBE, make_config


def names(config: Config) -> list[str]:
    return [spec.name for spec in stages_of(config)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.5])
def test_refinement_has_its_share_of_a_core_beside_another_process(share):
    weight, of_the_other = 1.25 ** -nice_for(share), 1
    assert weight / (weight + of_the_other) == pytest.approx(share, rel=0.12) or nice_for(share) == 19


def test_a_run_has_the_stages_it_is_configured_for(tmp_path):
    ends = ["stitcher", "finisher", "recorder", "viewer"]
    assert names(make_config(tmp_path)) == ["subscriber", "positions", "refinement", *ends]
    (tmp_path / "w.safetensors").touch()
    network = {"weights": tmp_path / "w.safetensors"}
    config = make_config(
        tmp_path,
        network=network,
        probe=TRAINED_PROBE,
        refinement={"enabled": False},
        viewer={"enabled": False},
    )
    assert names(config) == ["subscriber", "positions", "inference", "stitcher", "finisher", "recorder"]


def test_pvs_are_a_process_that_a_run_can_do_without(tmp_path):
    by_name = {spec.name: spec for spec in stages_of(make_config(tmp_path, pva={"enabled": True}))}
    assert by_name["pvs"].after == ("stitcher",)
    assert not by_name["pvs"].is_vital


def test_a_run_with_a_cluster_has_a_process_that_places_workers_once_their_doors_are_there(tmp_path):
    settings = {"network": {"weights": "demo"}, "probe": TRAINED_PROBE}
    remote = {"enabled": True, "cluster": "ray://head:10001"}
    config = make_config(tmp_path, **settings, remote=remote)
    assert names(config)[4:7] == ["gateway", "refinement", "cluster"]
    assert config.remote.address == "tcp://0.0.0.0:5812"
    assert config.remote.makes_keys
    by_name = {spec.name: spec for spec in stages_of(config)}
    assert by_name["cluster"].after == ("gateway",)
    assert not by_name["cluster"].is_vital
    both = make_config(tmp_path, **settings, remote=remote | {"refinement": "either"})
    assert {spec.name: spec for spec in stages_of(both)}["cluster"].after == ("gateway", "refinement")


@pytest.mark.parametrize(
    ("remote", "why"),
    [
        ({"cluster": "ray"}, "set `enabled: true`"),
        ({"cluster": "dask://head", "enabled": True}, "remote.cluster"),
        ({"enabled": True, "address": "tcp://0.0.0.0:5812"}, "can be reached from other machines"),
    ],
)
def test_a_door_for_a_cluster_that_could_not_be_is_refused(tmp_path, remote, why):
    with pytest.raises(ValueError, match=why):
        make_config(tmp_path, network={"weights": "demo"}, probe=TRAINED_PROBE, remote=remote)


def test_a_network_without_a_known_probe_gets_a_stage_that_finds_one(tmp_path):
    for settings in ({"source": "data", "n_frames": 64}, TRAINED_PROBE | {"is_guess": True}):
        config = make_config(
            tmp_path, network={"weights": "demo"}, probe=settings, finetune={"enabled": True}
        )
        order = ["subscriber", "positions", "probe", "inference", "refinement", "finetune", "stitcher"]
        assert names(config)[:7] == order
        run = resolve(config)
        assert optics(run).probe is None
        found = probe(run)
        assert found.config.n_frames == settings.get("n_frames", 96)
        assert (found.guess is not None) == ("is_guess" in settings)
        assert 0.7 < found.transmission < 0.8, "as the model card has it"
        assert not refinement(run).setup.scale_probe, "the network's scale"
        assert stitcher(run).origin.error_model.own != 0.4, "as the model card has it"


def test_a_run_has_the_version_of_its_weights_and_that_of_an_ensemble_where_it_is_the_mean(tmp_path):
    def version(**network) -> str:
        return model_id(make_config(tmp_path, network={"weights": "demo"} | network))

    alone = version()
    assert version(disagreement="round_robin", members=[DEMO_WEIGHTS]) == alone
    mean = version(disagreement="ensemble", members=[DEMO_WEIGHTS])
    assert mean == ensemble_id([alone, alone]) != alone


def test_several_workers_get_their_names_their_devices_and_one_that_gives_them_frames(tmp_path):
    network = {"weights": "demo", "workers": 3, "devices": ["cuda:0", "cpu"], "threads": 2}
    run = resolve(make_config(tmp_path, network=network, probe=TRAINED_PROBE))
    workers = [spec for spec in run.stages if spec.shares]
    assert [spec.name for spec in run.stages][2:6] == ["inference", *(spec.name for spec in workers)]
    assert [spec.name for spec in workers] == ["inference-1", "inference-2", "inference-3"]
    assert [spec.device for spec in workers] == ["cuda:0", "cpu", "cuda:0"]
    assert [run.on(spec.device).config.network.device for spec in workers] == ["cuda", "cpu", "cuda"]
    assert {(spec.threads, spec.closes, spec.shares) for spec in workers} == {(2, False, "inference")}
    assert isinstance(dispatcher(run), Dispatcher)
    assert run.stage("inference").threads == 1
    closing = stages._closing_stages(run, run.run_id)["inference"]
    assert closing.func is stages.inference, "the finisher works alone"


@pytest.mark.parametrize(("where", "goes_on_here"), [("elsewhere", False), ("either", True)])
def test_a_run_that_lends_its_refinement_has_a_door_for_who_does_it(run_folder, where, goes_on_here):
    remote = {"enabled": True, "refinement": where, "refinement_address": "tcp://127.0.0.1:*"}
    run = resolve(make_config(run_folder, remote=remote))
    assert "gateway" not in [spec.name for spec in run.stages]  # there is no network
    stage = lent_refinement(run)
    assert isinstance(stage, LentRefinement)
    assert (stage.door.address, stage.door.bind) == ("tcp://127.0.0.1:*", True)
    assert (stage.here is not None) == goes_on_here
    assert stage.config == run.config.refinement


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"remote": {"refinement": "either"}}, "needs `remote.enabled: true`"),
        (
            {
                "remote": {
                    "enabled": True,
                    "refinement": "elsewhere",
                    "refinement_address": "tcp://0.0.0.0:5813",
                }
            },
            "insecure",
        ),
        ({"remote": {"enabled": True}}, "needs `network.weights`, or for `remote.refinement`"),
    ],
)
def test_what_cannot_be_lent_or_is_open_to_strangers_is_refused(tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        make_config(tmp_path, **settings)


def test_settings_of_tuning_reach_its_stage(tmp_path):
    section = {"enabled": True, "budget_s": 7.0, "replayed": 0.3}
    run = resolve(make_config(tmp_path, network={"weights": "demo"}, probe=TRAINED_PROBE, finetune=section))
    stage = finetune(run)
    assert (stage.config.budget_s, stage.config.replayed) == (7.0, 0.3)
    spec = run.stage("finetune")
    assert not spec.is_vital
    assert not spec.closes
    others = [stage.nice + stage.nice_when_ready for stage in run.stages if stage is not spec]
    assert spec.nice_when_ready > max(others)


def test_settings_reach_their_stages(tmp_path):
    config = make_config(
        tmp_path,
        detector={
            "address": "ipc://detector",
            "pattern": "SUB",
            "end_grace_s": 7.0,
            "channel": "threshold_2",
        },
        positions={"unit": "nm", "signs": [-1, 1], "y": "sy", "x": "sx", "late_s": 3.0},
        refinement={"algorithm": "rpie", "object_step": 0.7, "epochs": 9.0},
        probe={"source": "data", "n_modes": 3},
        live={"address": "ipc://live", "tile_px": 32},
    )
    run = resolve(config)
    assert subscriber(run).inlet[:2] == ("SUB", (Endpoint(address="ipc://detector"),))
    assert subscriber(run).config.end_grace_s == 7.0
    assert positions(run).config.signs == (-1, 1)
    assert positions(run).config.late_s == 3.0
    refines, stitches = refinement(run), stitcher(run)
    setup = refines.setup
    assert (setup.config.object_step, setup.config.epochs, setup.n_modes) == (0.7, 9.0, 3)
    assert stitches.config.tile_px == 32
    assert stitches.origin.run_id == run.run_id
    assert all(isinstance(stage, Worker) for stage in (refines, stitches))


def test_sources_are_told_by_what_their_builders_make(tmp_path):
    specs = stages_of(make_config(tmp_path))
    assert [spec.name for spec in specs if spec.is_source] == ["subscriber", "positions"]


def test_a_stage_started_again_takes_the_address_it_had(tmp_path):
    config = make_config(tmp_path, live={"address": "tcp://127.0.0.1:*"})
    run = resolve(config).model_copy(update={"addresses": {"stitcher": "tcp://127.0.0.1:43210"}})
    assert stitcher(run).door == Endpoint(address="tcp://127.0.0.1:43210", bind=True)


def test_a_computed_probe_is_written_with_its_photons(tmp_path):
    run = resolve(make_config(tmp_path, probe=TRAINED_PROBE))
    written = np.load(run.folder / PROBE_FILE)
    assert written.shape == (1, 64, 64) and written.dtype == np.complex64
    assert (np.abs(written) ** 2).sum() == pytest.approx(4e5)
    np.testing.assert_array_equal(optics(run).load_probe(), written)


@pytest.mark.parametrize(("factor", "held"), [(0, "only zeros"), (np.nan, "values that are not finite")])
def test_a_probe_without_light_is_refused_by_every_stage(tmp_path, factor, held):
    np.save(tmp_path / "probe.npy", factor * np.ones((1, 8, 8), np.complex64))
    with pytest.raises(ValueError, match=f"probe.npy: the probe holds {held}"):
        load_probe(tmp_path / "probe.npy", 8)


def test_without_a_known_probe_stages_are_told_of_none(tmp_path):
    assert optics(resolve(make_config(tmp_path))).probe is None


def test_a_probe_of_one_mode_gets_its_axis(tmp_path):
    np.save(tmp_path / "probe.npy", np.ones((8, 8), np.complex128))
    assert read_probe(tmp_path / "probe.npy").shape == (1, 8, 8)


@pytest.mark.parametrize("wrong", [np.ones((8, 8)), np.ones(8, complex)])
def test_what_is_no_probe_is_refused(tmp_path, wrong):
    np.save(tmp_path / "probe.npy", wrong)
    with pytest.raises(ValueError, match="wanted a complex probe"):
        read_probe(tmp_path / "probe.npy")


def test_a_run_reads_back_as_it_was_written(tmp_path):
    run = resolve(make_config(tmp_path))
    run.write()
    assert ResolvedRun.read(run.file) == run
    with pytest.raises(
        ValueError, match="has no stage 'inference'; it has subscriber, positions, refinement"
    ):
        run.stage("inference")


def viewer_run(save: Path, port: int) -> ResolvedRun:
    spec = StageSpec(name="viewer", builder="launch.run.stages:viewer", closes=False, is_vital=False)
    return new_run(make_config(save, viewer={"port": port}), (spec,))


def test_the_page_is_a_process_of_the_run(run_folder):
    with Supervisor(viewer_run(run_folder, 0)) as supervisor:
        supervisor.start()
        with urllib.request.urlopen(supervisor.address("viewer"), timeout=10) as page:
            assert b"<html" in page.read().lower()


def test_a_page_that_cannot_be_served_is_refused_before_the_run(run_folder):
    with Socket("ROUTER", Endpoint(address="tcp://127.0.0.1:*", bind=True)) as other:
        port = int(other.address.rpartition(":")[2])
        with (
            Supervisor(viewer_run(run_folder, port)) as supervisor,
            pytest.raises(RunFailedError, match=f"cannot serve the page at 127.0.0.1:{port}"),
        ):
            supervisor.start()


def test_a_scan_is_finished_as_its_own_run_was_told_quietly_and_on_the_cores_of_the_finisher(tmp_path):
    def resolved(**sections) -> ResolvedRun:
        run = resolve(make_config(tmp_path, probe=TRAINED_PROBE, **sections))
        run.write()
        return run

    earlier = resolved(refinement={"epochs": 7, "threads": 4}, network={"weights": "demo", "threads": 3})
    later = resolved(refinement={"enabled": False}, network={"weights": "demo"})
    stages_by_run = finisher(later)._stages_of
    assert list(stages_by_run(later.run_id)) == ["inference", "stitcher"]
    stages = stages_by_run(earlier.run_id)
    assert list(stages) == ["inference", "refinement", "stitcher"]
    config = stages["refinement"]().setup.config
    assert (config.epochs, config.threads) == (7, 1)
    assert config.publish_s > RefinementConfig().publish_s
    assert stages["inference"]().config.threads == 1
    assert stages["stitcher"]().origin.run_id == earlier.run_id
    with pytest.raises(FileNotFoundError):
        stages_by_run("a run that is not here")
