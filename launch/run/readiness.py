"""What can be told of a configuration before a process starts: `check` shows it, `run` refuses by it.

Files are opened, addresses bound for a moment, folders written to; nobody else is asked. What takes PyTorch
seconds to load is left to the stages, whose refusals end a run as well.
"""

from contextlib import suppress
from functools import partial

import numpy as np

from launch.config.config import Config
from launch.config.probe import Known, model_card, model_id, read_card
from launch.config.reading import ConfigError
from launch.memory import memory_bytes
from launch.run.findings import Finding, Findings, Result, caught
from launch.run.surroundings import addresses, cluster, pvs, require, save_folder, sources, store
from launch.run.training_range import outside_of_training
from operators.arrays import Positions, Probe, abs2
from operators.engine.backends import get_backend
from operators.geometry import Geometry
from operators.optics.probe import probe_diameter_px
from operators.optics.sampling import Judgement, judge_geometry, judge_positions, judge_probe, readable
from stream.detector.protocol import MAX_PIXELS
from stream.stages.inputs import Optics

_RESULTS: dict[str, Result] = {"plausible": "OK", "doubtful": "WARNING", "impossible": "ERROR"}
_SAID = {name: f"geometry.{name}: " for name in Geometry.__slots__}
GOOD_OVERLAP = 0.6, 0.8  # Bunk et al., Ultramicroscopy 108, 481 (2008), and a little more
_ARRAYS_OF_A_BATCH = 4  # complex64: exit waves, far fields, and what becomes of them


def readiness(known: Known, *, is_patient: bool = False) -> Findings:
    """Yields what this computer can tell of a configuration in a moment, thing by thing.

    Parameters
    ----------
    known : Known
    is_patient : bool
        Whether it may take longer: `auto` is tried as well, and what it finds is named.
    """
    config = known.config
    yield from map(_finding, judge_geometry(config.geometry.geometry(), _SAID))
    sizes = list(caught("memory", partial(_memory, config)))
    yield from sizes
    if any(finding.is_failure for finding in sizes):
        return  # what follows makes arrays of that size
    for what, tried in (
        ("frames", _frames),
        ("probe", _probe),
        ("positions", _position_file),
        ("positions", _position_folders),
        ("network", _network),
        ("refinement", partial(_refinement, is_patient=is_patient)),
        ("addresses", addresses),
        ("sources", sources),
        ("cluster", cluster),
        ("pvs", pvs),
        ("save", save_folder),
        ("store", store),
    ):
        yield from caught(what, partial(tried, known))


def warnings_of(known: Known) -> list[Finding]:
    """Returns what a run of the configuration should be warned of.

    Raises
    ------
    ConfigError
        If it could not work, with a line for each reason.
    """
    findings = list(readiness(known))
    if failures := [finding for finding in findings if finding.is_failure]:
        raise ConfigError("\n".join(map(_line, failures)))
    return [finding for finding in findings if finding.result == "WARNING"]


def _line(finding: Finding) -> str:
    what, _, detail = finding
    return detail if detail.startswith(what) else f"{what}: {detail}"


def _finding(judged: Judgement) -> Finding:
    return Finding(judged.quantity, _RESULTS[judged.verdict], judged.doubt or judged.text)


def _memory(config: Config) -> Findings:
    geometry, n_modes, n_pixels = config.geometry, config.probe.n_modes, config.geometry.n_pixels
    side = n_pixels * geometry.binning
    if side**2 > MAX_PIXELS:
        raise ValueError(
            f"geometry: n_pixels {n_pixels} x binning {geometry.binning} need frames of {side} x {side} "
            f"pixels, more than the {MAX_PIXELS} that a frame can have"
        )
    section = "refinement" if config.refinement.enabled else "network"
    n_frames = getattr(config, section).batch_size
    n_bytes, here = _ARRAYS_OF_A_BATCH * 8.0 * n_frames * n_modes * n_pixels**2, memory_bytes()
    modes = f"{n_modes} modes" if n_modes > 1 else "1 mode"
    batch = f"a batch of {n_frames} frames with {modes} takes {readable(n_bytes, 'B')}"
    if n_bytes > here:
        raise ValueError(
            f"{batch}, this computer has {readable(here, 'B')}: lower probe.n_modes, geometry.n_pixels or "
            f"{section}.batch_size"
        )
    yield Finding("memory", "OK", f"{batch}, {readable(here, 'B')} are there")


def _frames(known: Known) -> Findings:
    geometry, shape = known.config.geometry, known.config.detector.frame_shape
    side = geometry.n_pixels * geometry.binning
    optics = Optics(geometry)
    mask = optics.preprocess_of(shape).mask if shape else optics.pattern_mask()
    masked = "" if geometry.mask is None or mask is None else f", {np.mean(~mask):.1%} masked"
    size = f"{shape[0]} x {shape[1]}" if shape else f"at least {side} x {side}"
    yield Finding("frames", "OK", f"{size} pixels{masked}")


def _probe(known: Known) -> Findings:
    probe = _known_probe(known)
    if probe is None:
        yield Finding("probe", "OK", "found from the first frames")
        if (path := known.config.probe.path) is not None:
            unused = f"{path} is not used: probe.source is 'data', wanted 'file' to use it"
            yield Finding("probe", "WARNING", unused)
        return
    n_modes, n_pixels, _ = probe.shape
    modes = f"{n_modes} modes" if n_modes > 1 else "1 mode"
    yield Finding("probe", "OK", f"{modes} of {n_pixels} x {n_pixels} pixels")
    yield from map(_finding, judge_probe(probe, known.config.geometry.geometry()))


def _known_probe(known: Known) -> Probe | None:
    probe, n_pixels = known.probe, known.config.geometry.n_pixels
    if probe is not None and probe.shape[1:] != (n_pixels, n_pixels):
        raise ValueError(
            f"the probe has shape {probe.shape}, patterns have {n_pixels} x {n_pixels} pixels: "
            "crop or pad the probe, or change geometry.n_pixels"
        )
    return probe


def _position_folders(known: Known) -> Findings:
    section = known.config.positions
    if section.source == "panda":
        require("pandablocks")
    folder = section.growing_path and section.growing_path.parent
    if folder and not set(str(folder)) & set("*?[{") and not folder.is_dir():
        yield Finding("positions", "WARNING", f"there is no folder {folder} so far")
    for folder in (*section.folders, *(section.root_map or {}).values()):
        if not folder.is_dir():
            detail = f"there is no folder {folder} here: files that documents name in it are not found"
            yield Finding("positions", "WARNING", detail)


def _position_file(known: Known) -> Findings:
    section, geometry = known.config.positions, known.config.geometry.geometry()
    diameter_m = None
    with suppress(ValueError, OSError):  # a finding of its own
        probe = None if known.config.probe.is_guess else _known_probe(known)
        if probe is not None and 0 < float(abs2(probe).sum(dtype=np.float64)) < np.inf:
            diameter_m = probe_diameter_px(probe) * geometry.object_pixel_m
    positions_m = known.positions_m
    if positions_m is None:
        if diameter_m:
            low, high = (readable((1 - share) * diameter_m, "m", digits=2) for share in GOOD_OVERLAP[::-1])
            yield Finding(
                "overlap", "OK", f"steps of {low} to {high} overlap well: see that the plan takes such"
            )
        return
    finite_m = positions_m[np.isfinite(positions_m).all(axis=1)]
    yield Finding("positions", "OK", f"{len(positions_m)} in {section.path}")
    if n_unknown := len(positions_m) - len(finite_m):
        yield Finding("positions", "WARNING", f"{n_unknown} of {len(positions_m)} are not finite")
    if len(finite_m) and (n_far := _n_far_off(finite_m, section.field_m)):
        # as the stage judges them; it takes the middle of the first that come
        yield Finding(
            "positions",
            "ERROR" if n_far > len(finite_m) / 2 else "WARNING",
            f"{n_far} of {len(finite_m)} lie more than {readable(section.field_m, 'm')} from the middle and "
            "would be rejected: check positions.unit, or raise positions.field_m",
        )
    judgements = judge_positions(positions_m, geometry, diameter_m=diameter_m, memory_bytes=memory_bytes())
    yield from map(_finding, judgements)


def _n_far_off(positions_m: Positions, field_m: float) -> int:
    is_far = np.abs(positions_m - np.median(positions_m, axis=0)) > field_m
    return int(is_far.any(axis=1).sum())


def _network(known: Known) -> Findings:
    config = known.config
    section, n_pixels = config.network, config.geometry.n_pixels
    if section.weights is None:
        return
    for weights in (section.weights, *section.members):
        card = read_card(weights)
        trained = card.get("config", {}).get("n_pixels")
        if trained != n_pixels:
            raise ValueError(
                f"{weights.name} takes patterns of {trained} x {trained} pixels, geometry.n_pixels is "
                f"{n_pixels}: crop or bin to {trained} (geometry.n_pixels, geometry.binning), or train for "
                f"{n_pixels}"
            )
    if section.device == "cuda" or set(section.devices) - {"cpu"}:
        # It brings torch: seconds that only a GPU is worth.
        from stream.stages.inference.predictors import check_devices

        check_devices(section)
    if config.finetune.enabled and "natural" in model_card(config).get("recipe", {}).get("families", ()):
        require("skimage")
    yield Finding("network", "OK", f"{section.weights.name}, version {model_id(config)}")
    doubts: list[str] = []
    with suppress(ValueError, OSError):  # a probe that cannot be read is a finding of its own
        doubts = outside_of_training(known)
    yield from (Finding("network", "WARNING", doubt) for doubt in doubts)


def _refinement(known: Known, *, is_patient: bool) -> Findings:
    section = known.config.refinement
    if section.enabled and (section.device != "auto" or is_patient):
        yield Finding("refinement", "OK", f"updates by {get_backend(section.device).name}")
