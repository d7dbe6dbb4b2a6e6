import numpy as np
import pytest
import torch

from operators.network import predictor
from operators.network.predictor import Predictor
from stream.files.weights import save_network
from stream.record.account import account
from stream.record.probe import publish_probe
from stream.record.scan import Scan, State
from stream.record.tuned_weights import count_models, ensemble_id
from stream.stages.inference import worker
from stream.stages.inputs import Optics
from stream.stages.loop import WorkerLoop
from tests.helpers.stream.clock import Clock
from tests.helpers.stream.inference_bench import CARD, InferenceBench, network, other_network, tune
from tests.helpers.stream.scans import DETECTOR_PLANE, close, lose, make_scan, record, states


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return InferenceBench(tmp_path_factory.mktemp("inference"))


def test_every_frame_gets_patch_sigma_and_the_model_that_made_them(tmp_path, bench):
    scan = bench.run(tmp_path)
    n = scan.n_frames
    assert n == len(bench.scanned)
    assert account(scan, "inference").is_complete
    assert scan.count("inference", "closed") == 1
    patches, sigma = scan.column("patches").head(n), scan.column("sigma").head(n)
    assert patches.shape == sigma.shape == (n, 16, 16)
    assert (np.isfinite(patches) & np.isfinite(sigma) & (sigma > 0)).all()
    assert (scan.column("model").head(n) == int(bench.card.model_id, 16)).all()
    assert (scan.column("inferred_s").head(n) == 100.0).all()


def test_patches_are_those_of_their_own_frames(tmp_path, bench):
    scan = bench.run(tmp_path)
    patches = scan.column("patches").head(len(bench.scanned))
    assert len(np.unique(patches.reshape(len(patches), -1), axis=0)) == len(patches)
    again = make_scan(tmp_path / "again")
    numbers = np.array([30, 3, 17])
    record(again, numbers, bench.frames[numbers])
    bench.stage().open(again).handle(numbers)
    np.testing.assert_array_equal(again.column("patches").read(numbers), patches[numbers])


@pytest.mark.parametrize("seed", [1, 2])
def test_results_do_not_depend_on_batch_mates_or_arrival(tmp_path, bench, seed):
    n = len(bench.scanned)
    one = bench.run(tmp_path / "in order")
    other = bench.run(tmp_path / "shuffled", order=np.random.default_rng(seed).permutation(n))
    for column in ("patches", "sigma"):
        assert (one.column(column).head(n) == other.column(column).head(n)).all(), "to the last bit"


@pytest.mark.parametrize("shape", [(16, 16), (20, 24)], ids=["of patterns", "of frames"])
def test_the_network_is_told_which_pixels_the_detector_does_not_measure(tmp_path, bench, shape, monkeypatch):
    told = []
    build = worker.build_predictor
    monkeypatch.setattr(
        worker, "build_predictor", lambda *args, **kw: (told.append(kw["mask"]), build(*args, **kw))[1]
    )
    valid = np.ones(shape, bool)
    valid[shape[0] // 2 + 2] = False
    np.save(tmp_path / "mask.npy", valid)
    bench.stage(optics=Optics(DETECTOR_PLANE.changed(mask=tmp_path / "mask.npy"), bench.optics.probe))
    expected = np.ones((16, 16), bool)
    expected[2] = False  # zero frequency in the corner
    np.testing.assert_array_equal(told, [expected])


def assert_same_values(scan, expected, rtol):
    numbers = np.arange(expected.n_frames)
    assert (scan.states("inference") == State.DONE).all()
    for name in ("patches", "sigma"):
        found, wanted = (it.column(name).read(numbers) for it in (scan, expected))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=rtol * np.abs(wanted).max())


@pytest.mark.parametrize("how", [{"later": True}, {"threads": 3}])
def test_batches_stored_while_a_gpu_works_and_by_several_threads_are_the_same(
    tmp_path, bench, how, monkeypatch
):
    monkeypatch.setattr(predictor, "fast_dtype", lambda network: torch.float32)  # as several threads do
    assert_same_values(bench.run(tmp_path / "how", **how), bench.run(tmp_path / "plain"), rtol=1e-5)


def test_a_batch_on_the_gpu_is_stored_as_soon_as_there_is_nothing_else_to_do(tmp_path, bench):
    scan, stage = make_scan(tmp_path), bench.stage()
    stage.stores_later = True
    record(scan, np.arange(8), bench.frames[:8])
    loop = WorkerLoop(stage, tmp_path, Clock())
    assert loop.turn() == 0  # and so the next turn follows at once
    assert (states(scan, "inference") == State.PENDING).all()
    loop.turn()
    assert (states(scan, "inference") == State.DONE).all()


@pytest.mark.cuda
def test_a_gpu_goes_on_while_tuned_weights_are_recorded(tmp_path, bench):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    scan, stage, n = make_scan(tmp_path), bench.stage(device="cuda"), len(bench.scanned)
    record(scan, np.arange(n), bench.frames)
    work, card = stage.open(scan), tune(scan)
    n_before = 0
    work.handle(np.arange(8))
    while card.model_id not in count_models(scan, np.arange(8)):
        work.handle(np.arange(8))
        n_before += 1
    work.handle(np.arange(n))
    work.close()
    assert n_before > 0
    other = tmp_path / "other.safetensors"
    save_network(other, other_network(), CARD)
    assert_same_values(Scan(scan.folder), bench.run(tmp_path / "cpu", weights=other), rtol=0.03)  # float16


@pytest.mark.cuda
def test_a_gpu_gives_the_patches_of_a_cpu(tmp_path, bench):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = bench.run(tmp_path / "gpu", device="cuda", threads=2)
    assert_same_values(found, bench.run(tmp_path / "cpu"), rtol=0.03)  # float16


def test_the_last_frames_do_not_wait_for_a_full_batch(tmp_path, bench):
    scan = bench.run(tmp_path, order=np.arange(5), batch_size=64)
    assert states(scan, "inference").tolist() == [State.DONE] * 5


def test_frames_that_were_never_recorded_are_not_made_up(tmp_path, bench):
    scan = make_scan(tmp_path)
    record(scan, [0, 2], bench.frames[[0, 2]])
    lose(scan, [1])
    close(scan, "subscriber")
    loop = WorkerLoop(bench.stage(), tmp_path, Clock())
    for _ in range(5):
        loop.turn()
    assert states(scan, "inference").tolist() == [State.DONE, State.LOST, State.DONE]
    assert not scan.column("patches").read(1).any()


def test_a_patch_that_is_not_finite_is_bad_and_its_batch_mates_are_not(tmp_path, bench, monkeypatch):
    scan = make_scan(tmp_path)
    record(scan, np.arange(4), bench.frames[:4])
    submit = Predictor.submit

    def submit_badly(self, patterns):
        patches, sigma = submit(self, patterns)()
        if len(patches) == 4:  # not the warm-up
            patches[1, 3, 3], sigma[2, 0, 0] = np.nan, np.inf
        return lambda: (patches, sigma)

    monkeypatch.setattr(Predictor, "submit", submit_badly)
    work = bench.stage().open(scan)
    work.handle(np.arange(4))
    expected = [State.DONE, State.BAD, State.BAD, State.DONE]
    assert states(scan, "inference").tolist() == expected
    assert work.counts() == {"inferred": 2}


def test_a_restart_with_another_network_goes_on_and_the_columns_tell_which_made_what(tmp_path, bench):
    scan = make_scan(tmp_path / "scans")
    record(scan, np.arange(8), bench.frames[:8])
    WorkerLoop(bench.stage(), tmp_path / "scans", Clock()).turn()
    card = save_network(tmp_path / "other.safetensors", other_network(), CARD)
    record(scan, np.arange(8, 12), bench.frames[8:12])
    close(scan, "subscriber")
    loop = WorkerLoop(bench.stage(weights=tmp_path / "other.safetensors"), tmp_path / "scans", Clock())
    loop.turn()
    models = Scan(scan.folder).column("model").head(12)
    assert models.tolist() == [int(bench.card.model_id, 16)] * 8 + [int(card.model_id, 16)] * 4


def test_frames_wait_for_a_probe_that_is_found_during_the_scan(tmp_path, bench):
    scan = make_scan(tmp_path)
    record(scan, np.arange(12), bench.frames[:12])
    loop = WorkerLoop(bench.stage(optics=Optics(DETECTOR_PLANE), batch_size=4), tmp_path, Clock())
    for _ in range(5):
        loop.turn()
    assert (states(scan, "inference") == State.PENDING).all()
    publish_probe(scan, bench.scanned.probe)
    record(scan, np.arange(12, 14), bench.frames[12:14])
    close(scan, "subscriber", "probe")
    for _ in range(8):
        loop.turn()
    scan = Scan(scan.folder)
    assert account(scan, "inference").is_complete
    known = bench.run(tmp_path / "known")
    for column in ("patches", "sigma"):
        np.testing.assert_array_equal(scan.column(column).head(14), known.column(column).head(14))


def test_frames_that_waited_for_a_probe_are_done_although_others_keep_coming(tmp_path, bench):
    scan = make_scan(tmp_path)
    record(scan, np.arange(12), bench.frames[:12])
    loop = WorkerLoop(bench.stage(optics=Optics(DETECTOR_PLANE), batch_size=4), tmp_path, Clock())
    for _ in range(5):
        loop.turn()
    publish_probe(scan, bench.scanned.probe)
    for first in (12, 16, 20):
        record(scan, np.arange(first, first + 4), bench.frames[first : first + 4])
        loop.turn()
    assert (states(scan, "inference")[:24] == State.DONE).all()


def test_without_any_probe_the_frames_are_left_unfinished(tmp_path, bench):
    scan = make_scan(tmp_path)
    record(scan, np.arange(4), bench.frames[:4])
    close(scan, "subscriber", "probe")
    loop = WorkerLoop(bench.stage(optics=Optics(DETECTOR_PLANE)), tmp_path, Clock())
    for _ in range(4):
        loop.turn()
    assert states(scan, "inference").tolist() == [State.UNFINISHED] * 4


@pytest.fixture
def members(tmp_path):
    """Weights files and versions of two networks beside that of the bench."""
    paths = tuple(tmp_path / f"{seed}.safetensors" for seed in (1, 2))
    cards = [save_network(path, network(seed), CARD) for seed, path in enumerate(paths, 1)]
    return paths, [int(card.model_id, 16) for card in cards]


def test_the_columns_tell_which_of_the_members_that_take_turns_made_a_patch(tmp_path, bench, members):
    paths, versions = members
    scan = bench.run(tmp_path / "turns", disagreement="round_robin", members=paths)
    numbers = np.arange(scan.n_frames)
    models, patches = (scan.column(name).read(numbers) for name in ("model", "patches"))
    makers = {int(bench.card.model_id, 16): bench.weights} | dict(zip(versions, paths, strict=True))
    assert set(models) == set(makers)
    for version, path in makers.items():
        made = models == version
        alone = bench.run(tmp_path / f"{version}", weights=path).column("patches").read(numbers)
        np.testing.assert_allclose(patches[made], alone[made], atol=1e-5)
    counts = {f"{version:012x}": np.count_nonzero(models == version) for version in makers}
    assert count_models(scan, numbers) == counts


def test_the_mean_of_an_ensemble_has_a_version_of_its_own(tmp_path, bench, members):
    paths, versions = members
    scan = bench.run(tmp_path / "mean", order=np.arange(6), disagreement="ensemble", members=paths)
    expected = ensemble_id([bench.card.model_id, *(f"{version:012x}" for version in versions)])
    assert count_models(scan, np.arange(6)) == {expected: 6}


def test_what_cannot_work_is_said_before_the_first_frame(tmp_path, bench):
    np.save(tmp_path / "small.npy", np.ones((1, 8, 8), np.complex64))
    with pytest.raises(ValueError, match=r"small\.npy: probe has shape \(1, 8, 8\), patterns have 16 x 16"):
        bench.stage(optics=Optics(DETECTOR_PLANE, tmp_path / "small.npy"))
    with pytest.raises(ValueError, match="there is no file"):
        bench.stage(weights=tmp_path / "none.safetensors")
