"""From one configuration to the stages of a run: which there are, and how each process makes its own.

`resolve` is called where a run begins, the builders by `launch.run.stage_process` in the stage's own
process; imports are inside them so that a process loads only what its stage needs.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from launch.config.config import Config
from launch.config.probe import error_model, known_probe, model_card, model_id
from launch.config.run_file import PROBE_FILE, ResolvedRun, StageSpec, client_of, new_run, optics
from stream.stages.stage import Service, Source, Stage, Worker
from stream.wire.sockets import Endpoint

if TYPE_CHECKING:
    from stream.stages.positions import PositionsConfig

# Frames and the live picture come first; what takes long takes the time that they leave.
REFINEMENT_NICE, FINETUNE_NICE = 10, 19


def resolve(config: Config) -> ResolvedRun:
    """Returns a new run of `config`, its known probe written to the run's folder.

    Raises
    ------
    ValueError
        If the probe cannot be read or computed.
    """
    run = new_run(config, stages_of(config))
    probe = known_probe(config.probe, config.geometry.n_pixels)
    if probe is not None:
        run.folder.mkdir(parents=True, exist_ok=True)
        np.save(run.folder / PROBE_FILE, probe)
    return run


def stages_of(config: Config) -> tuple[StageSpec, ...]:
    """Returns the stages that `config` asks for, in the order in which they are stopped."""
    stages = [_spec(subscriber), _spec(positions)]
    if config.finds_probe:
        stages.append(_spec(probe, threads=config.refinement.threads))
    if config.network.weights:
        stages.append(_spec(inference, threads=config.network.threads))
    if config.refinement.enabled:
        stages.append(_spec(refinement, threads=config.refinement.threads, nice=REFINEMENT_NICE))
    if config.finetune.enabled:
        # An experiment beside the scan: it must never cost a frame, nor the run when it fails.
        stages.append(_spec(finetune, closes=False, is_vital=False, nice_when_ready=FINETUNE_NICE))
    stages.append(_spec(stitcher))
    stages.append(_spec(recorder, nice=10))
    if config.viewer.enabled:
        # Only an address that the stitcher chooses has to be waited for: the page is there at once.
        doors = {"stitcher": config.live} | ({"policy": config.policy} if config.policy.enabled else {})
        after = tuple(stage for stage, section in doors.items() if section.address.endswith("*"))
        stages.append(_spec(viewer, closes=False, is_vital=False, after=after, nice=5))
    if config.policy.enabled:
        stages.append(_spec(policy, closes=False, is_vital=False, after=("stitcher",)))
    return tuple(stages)


def _spec(builder: Callable[[ResolvedRun], Stage], **options: object) -> StageSpec:
    """Return the process of what `builder` makes, which says what kind of stage that is."""
    own = {
        "name": builder.__name__,
        "builder": f"{builder.__module__}:{builder.__name__}",
        "is_source": builder.__annotations__["return"] is Source,
    }
    return StageSpec.model_validate(own | options)


def _own(endpoint: Endpoint, run: ResolvedRun, stage: str) -> Endpoint:
    """Return `endpoint` at the address the stage had before it was started again, if it was."""
    return replace(endpoint, address=run.addresses.get(stage, endpoint.address))


def subscriber(run: ResolvedRun) -> Source:
    """Returns the stage that records frames."""
    from stream.stages.subscriber import Subscriber, SubscriberConfig

    section, context = run.config.detector, run.context()
    config = SubscriberConfig(
        endpoints=(_own(section.endpoint(), run, "subscriber"),),
        pattern=section.pattern,
        queue=section.queue,
        channel=section.channel,
        end_grace_s=section.end_grace_s,
        silence_s=section.silence_s,
        frame_shape=section.frame_shape,
        frame_dtype=section.frame_dtype,
    )
    return Subscriber(config, run.scans, run_id=context.run_id, config_hash=context.config_hash)


def positions(run: ResolvedRun) -> Source:
    """Returns the stage that records positions."""
    from stream.stages.positions import Positions

    return Positions(_positions_config(run), run.scans)


def _positions_config(run: ResolvedRun) -> "PositionsConfig":
    from stream.documents.reader import PositionFields
    from stream.stages.positions import PositionsConfig

    section = run.config.positions
    fields = section.unit and PositionFields(
        unit=section.unit,
        y=section.y,
        x=section.x,
        signs=section.signs,
        frames_per_event=section.frames_per_event,
        stream=section.stream,
    )
    return PositionsConfig(
        source=section.source,
        endpoints=(_own(section.endpoint(), run, "positions"),) if section.source == "documents" else (),
        queue=section.queue,
        fields=fields,
        path=section.path,
        series_key=section.series_key,
        late_s=section.late_s,
        field_m=section.field_m,
    )


def probe(run: ResolvedRun) -> Worker:
    """Returns the stage that finds the probe during the scan, or corrects a guess."""
    from stream.stages.probe import ProbeFinder, ProbeFinderConfig

    section, guess = run.config.probe, run.folder / PROBE_FILE
    return ProbeFinder(
        ProbeFinderConfig(
            optics=optics(run),
            guess=guess if guess.exists() else None,
            n_frames=section.n_frames,
            n_modes=section.n_modes,
            photons=section.photons,
            transmission=model_card(run.config).get("transmission", 1.0),
            threads=run.config.refinement.threads,
        )
    )


def inference(run: ResolvedRun) -> Worker:
    """Returns the stage that runs the network."""
    from stream.stages.inference import Inference, InferenceConfig
    from stream.stages.predictors import UncertaintyConfig

    section = run.config.network
    if section.weights is None:
        raise ValueError("network.weights: the inference stage needs weights")
    return Inference(
        InferenceConfig(
            optics=optics(run),
            weights=section.weights,
            batch_size=section.batch_size,
            deadline_s=section.deadline_s,
            threads=section.threads,
            device=section.device,
            uncertainty=UncertaintyConfig(
                disagreement=section.disagreement,
                members=section.members,
                dropout=section.dropout,
                n_samples=section.dropout_samples,
            ),
        )
    )


def refinement(run: ResolvedRun) -> Worker:
    """Returns the stage that refines the object."""
    from stream.stages.refinement import Refinement, RefinementConfig

    section = run.config.refinement
    return Refinement(
        RefinementConfig(
            optics=optics(run),
            refiner=section.refiner(),
            epochs=section.epochs,
            n_modes=run.config.probe.n_modes,
            scale_probe=run.config.scales_probe,
            uses_network=run.config.network.weights is not None,
            starts_over=run.config.policy.enabled,
            first_frames=section.first_frames,
            publish_s=section.publish_s,
            device=section.device,
            threads=section.threads,
        )
    )


def stitcher(run: ResolvedRun) -> Worker:
    """Returns the stage that assembles and publishes the live image."""
    from stream.stages.stitcher import Stitcher, StitcherConfig

    section, context = run.config.live, run.context()
    return Stitcher(
        StitcherConfig(
            optics=optics(run),
            door=_own(section.endpoint(), run, "stitcher"),
            uses_network=run.config.network.weights is not None,
            uses_refinement=run.config.refinement.enabled,
            tile_px=section.tile_px,
            interval_s=section.interval_s,
            run_id=context.run_id,
            config_hash=context.config_hash,
            model=model_id(run.config),
            error_model=error_model(run.config),
        )
    )


def recorder(run: ResolvedRun) -> Worker:
    """Returns the stage that writes results and the entry in the store."""
    from launch.results.recorder import Recorder, RecorderConfig

    config, context = run.config, run.context()
    return Recorder(
        RecorderConfig(
            optics=optics(run),
            save=config.save,
            uses_network=config.network.weights is not None,
            uses_refinement=config.refinement.enabled,
            run_id=context.run_id,
            config_hash=context.config_hash,
            model=model_id(config),
            error_model=error_model(config),
            store=(config.store.path or config.save / "store") if config.store.enabled else None,
            store_timeout_s=config.store.timeout_s,
        )
    )


def viewer(run: ResolvedRun) -> Service:
    """Returns the process that serves the web page."""
    from launch.page.server import ViewerConfig
    from launch.page.service import ViewerService

    section, policy = run.config.viewer, run.config.policy
    live = client_of(run, "stitcher", run.config.live)
    return ViewerService(
        ViewerConfig(
            live_address=live.address,
            host=section.host,
            # started again on a port of its own choice, it keeps it: browsers come back
            port=urlsplit(run.addresses.get("viewer", "")).port or section.port,
            insecure=section.insecure,
            live_insecure=live.insecure,
            key=live.key,
            peers=live.peers,
            policy=client_of(run, "policy", policy) if policy.enabled else None,
            controls=section.controls,
        )
    )


def finetune(run: ResolvedRun) -> Worker:
    """Returns the stage that tunes the weights to the sample."""
    from launch.training.finetune import Finetuning, FinetuningConfig
    from launch.training.tuning import TuningConfig

    section = run.config.finetune
    if run.config.network.weights is None:
        raise ValueError("finetune: needs `network.weights`")
    return Finetuning(
        FinetuningConfig(
            optics=optics(run),
            weights=run.config.network.weights,
            tuning=TuningConfig(learning_rate=section.learning_rate, replayed=section.replayed),
            **section.model_dump(exclude={"enabled", "learning_rate", "replayed"}),
        )
    )


def policy(run: ResolvedRun) -> Service:
    """Returns the process that follows the live image and answers plans."""
    from launch.run.policy_process import policy_service

    return policy_service(run)
