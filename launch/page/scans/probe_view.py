"""The probe of a scan as the page shows it: its modes as they are now, and where they come from."""

from typing import NamedTuple

import numpy as np

from launch.page.scans.packet import encode_arrays, summed
from launch.page.scans.records import NotThereError, ScanRecord
from operators.arrays import Array, Probe, abs2
from stream.record.forerunner import forerunner_of
from stream.record.probe import STAGE, found_probe
from stream.stages.inputs import load_probe

MOST_MODES, MOST_SIDE_PX = 6, 256


class ProbeState(NamedTuple):
    """A probe, and what to say of it.

    Attributes
    ----------
    probe : (mode, y, x) complex64
    version : str
        Another one for every other probe of the scan.
    words : str
    """

    probe: Probe
    version: str
    words: str


def probe_of(record: ScanRecord) -> ProbeState:
    """Returns the best probe that is known by now.

    Raises
    ------
    NotThereError
        If there is none yet.
    """
    scan = record.scan
    if (state := record.state()) is not None:
        earlier = forerunner_of(scan)
        started = f", started from that of {earlier}" * bool(earlier)
        words = f"refined with the object, epoch {state.epoch:.1f}{started}"
        return ProbeState(state.probe, f"refined-{record.state_version}", words)
    if (probe := found_probe(scan)) is not None:
        return ProbeState(probe, f"found-{scan.count(STAGE, 'version')}", "found from the first frames")
    run = record.run
    if record.optics.probe is not None:
        return ProbeState(record.optics.load_probe(), "known", "known before the scan")
    if record.guessed_probe.exists():
        guess = load_probe(record.guessed_probe, run.config.geometry.n_pixels)
        return ProbeState(guess, "guess", f"a guess to start from; of the probe itself, {_search(record)}")
    raise NotThereError(f"not known yet: {_search(record)}")


def probe_packet(record: ScanRecord, after: str) -> bytes | None:
    """Returns amplitude and phase of the modes, strongest first, None if `after` is the key of this probe.

    Raises
    ------
    NotThereError
        If no probe is known yet.
    """
    probe, version, words = probe_of(record)
    key = f"{record.scan.name} {version}"
    if key == after:
        return None
    powers = abs2(probe).sum(axis=(1, 2))
    order = np.argsort(-powers)
    shown, factor = summed(probe[order[:MOST_MODES]], MOST_SIDE_PX)
    facts = {
        "scan": record.scan.name,
        "key": key,
        "words": words,
        "pixel_m": record.optics.geometry.object_pixel_m * factor,
        "photons": float(powers.sum()),
        "shares": [float(power) for power in powers[order] / max(powers.sum(), 1e-30)],
    }
    # each mode has a phase of its own that means nothing; without it the colours stand still
    phases = np.angle(_upright(shown))
    return encode_arrays(facts, {"amplitude": np.abs(shown) / factor**2, "phase": phases})


def _upright(modes: Array) -> Array:
    mean = (modes * np.abs(modes)).sum(axis=(1, 2), keepdims=True)
    return modes * np.exp(-1j * np.angle(mean))


def _search(record: ScanRecord) -> str:
    config, scan = record.run.config, record.scan
    if config.finds_probe:
        n_frames, n_wanted = len(scan.done(STAGE)), config.probe.n_frames
    else:
        n_frames, n_wanted = len(scan.done("positions")), config.refinement.first_frames
    if n_frames < n_wanted:
        return f"{n_frames} of {n_wanted} frames are there to find it from"
    return f"it is being found from the first {n_wanted} frames"
