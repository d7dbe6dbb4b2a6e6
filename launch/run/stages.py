"""From one configuration to the stages of a run: which there are, and how each process makes its own.

`resolve` is called where a run begins, the builders by `launch.run.stage_process` in the stage's own
process; imports are inside them so that a process loads only what its stage needs.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import numpy as np

from launch.config.config import Config
from launch.config.policy import axes_of
from launch.config.probe import Known, error_model, model_card, model_id
from launch.config.run_file import PROBE_FILE, ResolvedRun, StageSpec, client_of, new_run, optics, work_door
from stream.atomic import replacing
from stream.files.endpoint_section import EndpointSection
from stream.record.handover import NETWORK
from stream.record.run_state import StateReader, is_asked_to_end
from stream.record.scan import INGESTS, Scan
from stream.stages.config import MOST_ELSEWHERE
from stream.stages.inference.leases import worker_name
from stream.stages.inputs import ImageOrigin
from stream.stages.stage import Service, Source, Stage, Worker

AnySection = TypeVar("AnySection", bound=EndpointSection)

# Frames and the live picture come first; what takes long takes what they leave, refinement its share.
FINISHER_NICE, FINETUNE_NICE = 15, 19
BEHIND = 5  # levels of nice of the finisher below refinement, which is at work on the running scan
FINISHER_PUBLISH_S = 5.0  # nobody watches; what a crash of the finisher costs
RESUMED_SILENCE_S = 10.0  # of a detector whose scan is only to be finished, where others may pause for ever
RELAY = "subscriber.relay"  # where the second of two ingests passes on what it does not deal with
LEASES = "inference.leases"  # where workers of inference get frames
PVS = "launch.pva.service:pvs"
PLACEMENT = "launch.on_ray.placement:placement"  # by its name: what knows Ray is no part of a run without
WEIGHT_OF_A_LEVEL = 1.25  # of the kernel's scheduler: so much more time has a process one level of nice below


def resolve(config: Config, known: Known | None = None) -> ResolvedRun:
    """Returns a new run of `config`, its known probe written to the run's folder.

    Parameters
    ----------
    config : Config
    known : Known, optional
        Of `config`, with what was read already.

    Raises
    ------
    ValueError
        If the probe cannot be read or computed.
    """
    run = new_run(config, stages_of(config))
    probe = (known or Known(config)).probe
    if probe is not None:
        with replacing(run.folder / PROBE_FILE) as temporary, temporary.open("wb") as file:
            np.save(file, probe)
    return run


def stages_of(config: Config) -> tuple[StageSpec, ...]:
    """Returns the stages that `config` asks for, in the order in which they are stopped."""
    stages = [_spec(subscriber), _spec(positions)]
    if config.detector.subscribers > 1:  # the first ends scans: it is stopped after the other
        stages.insert(0, _spec(assistant, name=INGESTS[1], closes=False, is_vital=False))
    if config.finds_probe:
        stages.append(_spec(probe, threads=config.refinement.threads))
    if config.network.weights:
        stages += _inference_of(config)
    if config.refinement.enabled:
        stages.append(_refinement_of(config, nice_for(config.refinement.share)))
    if config.remote.cluster:
        stages.append(_cluster_of(config))
    if config.finetune.enabled:
        # An experiment beside the scan: it must never cost a frame, nor the run when it fails.
        stages.append(_spec(finetune, closes=False, is_vital=False, nice_when_ready=FINETUNE_NICE))
    stages.append(_spec(stitcher))
    threads = config.finisher.threads
    nice = min(max(FINISHER_NICE, nice_for(config.refinement.share) + BEHIND), FINETUNE_NICE)
    stages.append(_spec(finisher, closes=False, is_vital=False, threads=threads, nice=nice))
    stages.append(_spec(recorder, nice_when_ready=10))
    if config.viewer.enabled:
        # Only an address that the stitcher chooses has to be waited for: the page is there at once.
        doors = {"stitcher": config.live} | ({"policy": config.policy} if config.policy.enabled else {})
        after = tuple(stage for stage, section in doors.items() if section.address.endswith("*"))
        stages.append(_spec(viewer, closes=False, is_vital=False, after=after, nice_when_ready=5))
    if config.pva.enabled:
        own = {"closes": False, "is_vital": False, "after": ("stitcher",), "nice_when_ready": 5}
        stages.append(StageSpec.model_validate({"name": "pvs", "builder": PVS} | own))
    if config.policy.enabled:
        stages.append(_spec(policy, closes=False, is_vital=False, after=("stitcher",)))
    return tuple(stages)


def _inference_of(config: Config) -> list[StageSpec]:
    """Return the one process that infers, or the dispatcher and the workers that it gives frames to."""
    section = config.network
    if section.workers == 1 and not config.remote.enabled:
        return [_spec(inference, threads=section.threads, device=section.device_of(1))]
    stages = [_spec(dispatcher, name=NETWORK)]
    for number in range(1, section.workers + 1):
        own = {"name": worker_name(number), "device": section.device_of(number)}
        stages.append(_spec(inference_worker, closes=False, shares=NETWORK, threads=section.threads, **own))
    if config.remote.enabled:
        stages.append(_spec(gateway, closes=False, is_vital=False))
    return stages


def _cluster_of(config: Config) -> StageSpec:
    """Return the process that places workers on a cluster, which it does when their doors are there."""
    doors = ("gateway",) * bool(config.network.weights) + ("refinement",) * config.remote.lends_refinement
    return StageSpec(name="cluster", builder=PLACEMENT, closes=False, is_vital=False, after=doors)


def _refinement_of(config: Config, nice: int) -> StageSpec:
    """Return the process that refines, or that lends scans to who does."""
    threads = config.refinement.threads
    if not config.remote.lends_refinement:
        return _spec(refinement, threads=threads, nice_when_ready=nice)
    # The one that is there first makes the keys of both.
    after = ("gateway",) if config.remote.makes_keys and config.network.weights else ()
    own = {"name": "refinement", "after": after, "threads": threads}
    if config.remote.refinement == "elsewhere":  # what it does is little, and somebody waits for it
        return _spec(lent_refinement, **own)
    return _spec(lent_refinement, nice_when_ready=nice, **own)


def nice_for(share: float) -> int:
    """Returns the level of nice that gives a process this share of a core beside one of level 0."""
    return min(max(round(math.log(1 / share - 1, WEIGHT_OF_A_LEVEL)), 0), FINETUNE_NICE)


def _spec(builder: Callable[[ResolvedRun], Stage], **options: object) -> StageSpec:
    """Return the process of what `builder` makes, which says what kind of stage that is."""
    name, is_source = builder.__name__, builder.__annotations__["return"] is Source
    own = {"name": name, "builder": f"{builder.__module__}:{name}", "is_source": is_source}
    return StageSpec.model_validate(own | options)


def _own(section: AnySection, run: ResolvedRun, stage: str) -> AnySection:
    """Return `section` at the address the stage had before it was started again, if it was."""
    return section.changed(address=run.addresses.get(stage, section.address))


def _origin(run: ResolvedRun) -> ImageOrigin:
    config, context = run.config, run.context()
    return ImageOrigin(
        optics=optics(run),
        uses_network=config.network.weights is not None,
        uses_refinement=config.refinement.enabled,
        run_id=context.run_id,
        config_hash=context.config_hash,
        model=model_id(config),
        error_model=error_model(config),
        motors=axes_of(config).on_wire,
    )


def subscriber(run: ResolvedRun) -> Source:
    """Returns the stage that records frames."""
    from launch.results.summary import result_folder
    from stream.stages.ingest.second import Second
    from stream.stages.ingest.subscriber import Subscriber
    from stream.stages.pulse import PulseReader

    section, context = _own(run.config.detector, run, "subscriber"), run.context()
    if run.resumes and not section.silence_s:
        section = section.changed(silence_s=RESUMED_SILENCE_S)
    return Subscriber(
        section,
        run.scans,
        run_id=context.run_id,
        config_hash=context.config_hash,
        stages=[spec.name for spec in run.stages],
        results=result_folder(run.config.save),
        told=run.config.positions.told,
        second=Second(PulseReader(run.rendezvous, INGESTS[1]), context.local(RELAY, bind=True))
        if section.subscribers > 1
        else None,
    )


def assistant(run: ResolvedRun) -> Source:
    """Returns the stage that records frames beside the first one."""
    from stream.stages.ingest.assistant import Assistant

    told = run.config.positions.told
    return Assistant(run.config.detector, run.scans, run.context().local(RELAY), told=told)


def positions(run: ResolvedRun) -> Source:
    """Returns the stage that records positions."""
    from stream.stages.positions import Positions

    section = _own(run.config.positions, run, "positions")
    return Positions(section, run.scans, config_hash=run.context().config_hash)


def probe(run: ResolvedRun) -> Worker:
    """Returns the stage that finds the probe during the scan, or corrects a guess."""
    from stream.stages.probe import ProbeFinder

    guess = run.folder / PROBE_FILE
    return ProbeFinder(
        run.config.probe,
        optics(run),
        guess=guess if guess.exists() else None,
        transmission=model_card(run.config).get("transmission", 1.0),
        reuse=run.config.series.reuse,
        threads=run.config.refinement.threads,
    )


def inference(run: ResolvedRun) -> Worker:
    """Returns the stage that runs the network."""
    from stream.stages.inference.worker import Inference

    return Inference(run.config.network, optics(run))


def dispatcher(run: ResolvedRun) -> Worker:
    """Returns the stage that gives frames out to several workers of inference."""
    from stream.stages.inference.dispatcher import Dispatcher

    door = run.context().local(LEASES, bind=True)
    return Dispatcher(run.config.network, optics(run), door, run.run_id)


def inference_worker(run: ResolvedRun) -> Service:
    """Returns one of several workers of inference."""
    from stream.stages.inference.leased import LeasedInference
    from stream.stages.inference.worker import Inference

    stage, door = Inference(run.config.network, optics(run)), run.context().local(LEASES)
    return LeasedInference(stage, door, lambda name: Scan(run.scans / name))


def gateway(run: ResolvedRun) -> Service:
    """Returns the process that lets workers of inference on other machines in."""
    from stream.remote.files import SharedFiles
    from stream.remote.inference.service import GatewayService
    from stream.remote.setup import setup_of

    files, context, n_here = SharedFiles(), run.context(), run.config.network.workers
    return GatewayService(
        work_door(run, _own(run.config.remote, run, "gateway")),
        context.local(LEASES),
        setup_of(run.config.network, optics(run), files),
        files,
        run.scans,
        run_id=run.run_id,
        numbers=range(n_here + 1, n_here + 1 + MOST_ELSEWHERE),
    )


def refinement(run: ResolvedRun) -> Worker:
    """Returns the stage that refines the object."""
    from stream.stages.refinement.worker import Refinement

    config = run.config
    return Refinement(
        config.refinement,
        optics(run),
        n_modes=config.probe.n_modes,
        scale_probe=config.scales_probe,
        uses_network=config.network.weights is not None,
        starts_over=config.policy.enabled,
        reuse=config.series.reuse,
    )


def lent_refinement(run: ResolvedRun) -> Worker:
    """Returns the stage that has the object refined on another machine."""
    from stream.remote.files import SharedFiles
    from stream.remote.refinement.lent import LentRefinement
    from stream.remote.setup import RefinementRules, refinement_setup_of

    config, files = run.config, SharedFiles()
    rules = RefinementRules(
        n_modes=config.probe.n_modes,
        scale_probe=config.scales_probe,
        uses_network=config.network.weights is not None,
        starts_over=config.policy.enabled,
        reuse=config.series.reuse,
    )
    return LentRefinement(
        config.refinement,
        optics(run),
        work_door(run, _own(config.remote.for_refinement(), run, "refinement")),
        refinement_setup_of(config.refinement, optics(run), rules, files),
        files,
        run.rendezvous,
        here=refinement(run) if config.remote.refinement == "either" else None,
        uses_network=rules.uses_network,
        reuse=rules.reuse,
        run_id=run.run_id,
    )


def stitcher(run: ResolvedRun) -> Worker:
    """Returns the stage that assembles and publishes the live image."""
    from stream.stages.stitching.worker import Stitcher

    return Stitcher(_own(run.config.live, run, "stitcher"), _origin(run), state=StateReader(run.rendezvous))


def _run_of(run: ResolvedRun, run_id: str) -> ResolvedRun:
    """Return the run `run_id`, `run` itself or an earlier one in the same folder."""
    return run if run_id == run.run_id else ResolvedRun.of_folder(run.folder.parent / run_id)


def finisher(run: ResolvedRun) -> Service:
    """Returns the process that closes scans while the next one is scanned."""
    from launch.results.finisher import Finisher
    from launch.results.halves import PATIENCE_S, LeftMeasurements
    from launch.results.retention import Retention
    from launch.results.summary import result_folder

    config, context = run.config, run.context()
    patience_s = math.inf if config.results.resolution == "always" else PATIENCE_S
    measurements = LeftMeasurements(context.scans, result_folder(config.save), patience_s)
    live = [spec.name for spec in run.stages]
    stages = partial(_closing_stages, run)
    retention = Retention(config.save, config.keep, run.run_id, needs_store=config.store.enabled)
    return Finisher(context, config.finisher.order, stages, measurements, live=live, retention=retention)


def _closing_stages(run: ResolvedRun, run_id: str) -> dict[str, Callable[[], Worker]]:
    """Return what closes scans of the run `run_id` in the folder of `run`, as that run was configured."""
    own, threads = _run_of(run, run_id), run.config.finisher.threads
    network, refining = own.config.network, own.config.refinement
    quiet = {
        "network": network.changed(threads=threads),
        "refinement": refining.changed(
            threads=threads, publish_s=max(refining.publish_s, FINISHER_PUBLISH_S)
        ),
    }
    own = own.model_copy(update={"config": own.config.model_copy(update=quiet)})
    builders = [probe] if own.config.finds_probe else []
    builders += [inference] if network.weights else []
    builders += [refinement] if refining.enabled else []
    return {builder.__name__: partial(builder, own) for builder in (*builders, stitcher)}


def recorder(run: ResolvedRun) -> Worker:
    """Returns the stage that writes results and the entry in the store."""
    from launch.results.recorder import Recorder

    return Recorder(
        run.config.results,
        run.config.store,
        _origin(run),
        run.config.save,
        is_ending=partial(is_asked_to_end, run.rendezvous),
        origin_of=lambda run_id: _origin(_run_of(run, run_id)),
    )


def viewer(run: ResolvedRun) -> Service:
    """Returns the process that serves the web page."""
    from launch.page.metrics.monitor import Monitor
    from launch.page.metrics.tally import RunTally
    from launch.page.run_facts import RunFacts
    from launch.page.scans.records import ScanRecords
    from launch.page.service import ViewerService

    section, policy = run.config.viewer, run.config.policy
    # started again on a port of its own choice, it keeps it: browsers come back
    port = urlsplit(run.addresses.get("viewer", "")).port or section.port
    facts = RunFacts.of(run.folder, run.rendezvous)
    tally = RunTally(run.scans, run.run_id, [spec.name for spec in run.stages])
    return ViewerService(
        section.changed(port=port),
        client_of(run, "stitcher", run.config.live),
        client_of(run, "policy", policy) if policy.enabled else None,
        ScanRecords(run.config.save, run.run_id),
        facts,
        Monitor(tally, run.run_id, run.config.save, facts),
    )


def finetune(run: ResolvedRun) -> Worker:
    """Returns the stage that tunes the weights to the sample."""
    from launch.training.finetune import Finetuning

    weights = run.config.network.weights
    if weights is None:
        raise ValueError("finetune: needs `network.weights`")
    return Finetuning(run.config.finetune, optics(run), weights)


def policy(run: ResolvedRun) -> Service:
    """Returns the process that follows the live image and answers plans."""
    from launch.run.policy_process import policy_service

    return policy_service(run)
