"""A save folder with scans as a run leaves them, for what reads them: the page."""

import json

import numpy as np

from launch.config.run_file import PROBE_FILE, new_run
from launch.results.cxi import write_cxi
from launch.results.reconstruction import Reconstruction
from operators.arrays import abs2
from operators.geometry import Bounds
from operators.optics.forward import intensities
from operators.patches import add_patches
from stream.record.error_curve import EpochError, write_error_curve
from stream.record.scan import Scan, ScanHeader, State
from stream.record.snapshot import write_snapshot
from tests.helpers.launch.runs import make_config
from tests.helpers.stream.scans import (
    DETECTOR_PLANE,
    FRAME_SHAPE,
    GEOMETRY,
    Sample,
    close,
    place,
    record,
    snapshot_of,
)


class SavedScans:
    """A run and scans of one sample, whose object and probe the refinement knows exactly."""

    def __init__(self, save, *, geometry=DETECTOR_PLANE, **sections):
        self.save, self.sample = save, Sample()
        self.run = new_run(make_config(save, geometry=geometry.model_dump(), **sections), ())
        self.run.write()
        rng = np.random.default_rng(0)
        self.patterns = rng.poisson(intensities(self.sample.probe, self.sample.patches)).astype("<u2")
        self.numbers = np.arange(len(self.sample))
        shape = self.sample.truth.shape
        self.bounds = Bounds(*self.sample.origin, *(self.sample.origin + shape))
        self.photons = np.zeros(shape, np.float32)
        light = abs2(self.sample.probe).sum(axis=0).astype(np.float32)
        add_patches(self.photons, light, self.sample.corners - self.sample.origin)

    def know_probe(self):
        np.save(self.run.folder / PROBE_FILE, self.sample.probe)

    def begin(self, name="0000-a", started_s=1_700_000_000.0):
        header = ScanHeader(
            series_id=0,
            series_uid=name,
            frame_shape=FRAME_SHAPE,
            frame_dtype="<u2",
            started_s=started_s,
            run_id=self.run.run_id,
        )
        return Scan.create(self.save / "scans" / name, header)

    def record(self, scan, numbers):
        """Record and place these frames."""
        record(scan, numbers, np.fft.fftshift(self.patterns[numbers], axes=(1, 2)), received_s=100.0)
        place(scan, numbers, self.sample.corners[numbers])

    def refine(self, scan, numbers):
        """Publish the object, as refinement does when these frames have taken part."""
        changes = {"probe": self.sample.probe, "illumination": self.photons, "error_history": (0.5, 0.25)}
        write_snapshot(scan.folder, snapshot_of(self.sample.truth, self.bounds, **changes))
        write_error_curve(
            scan.folder,
            [EpochError(1.0, 0.5, len(numbers), 102.0), EpochError(2.0, 0.25, len(numbers), 104.0)],
        )
        scan.mark("refinement", numbers, State.DONE)
        counters = scan.counters("refinement", writable=True)
        counters["version"] = counters["version"] + 1

    def end(self, scan, incomplete="", halves=None, **figures):
        """Write the result, as the recorder does."""
        result = Reconstruction(
            object=self.sample.truth,
            bounds=self.bounds,
            probe=self.sample.probe,
            photons=self.photons,
            positions_m=GEOMETRY.to_metres(self.sample.corners.astype(float)),
            frame_numbers=self.numbers,
            geometry=GEOMETRY,
            error_history=np.array([0.5, 0.25]),
            maps={},
            halves=halves,
        )
        stem = self.save / "results" / scan.name
        write_cxi(stem.with_suffix(".cxi"), result, {})
        figures |= {"frames_recorded": 36, "frames_expected": 36, "incomplete": incomplete}
        stem.with_suffix(".json").write_text(json.dumps(figures))
        close(scan, "recorder")

    def whole(self, name="0000-a", **told):
        """A scan from its beginning to its result."""
        scan = self.begin(name)
        self.record(scan, self.numbers)
        self.refine(scan, self.numbers)
        self.end(scan, **told)
        return scan


def decode_arrays(packet):
    """Header and arrays of `launch.page.scans.packet`, as the page's script reads them."""
    n_header = int.from_bytes(packet[:4], "little")
    header, offset, arrays = json.loads(packet[4 : 4 + n_header]), 4 + n_header, {}
    assert n_header % 4 == 0
    for entry in header["arrays"]:
        n_values = int(np.prod(entry["shape"]))
        arrays[entry["name"]] = np.frombuffer(packet, "<f4", n_values, offset).reshape(entry["shape"])
        offset += 4 * n_values
    assert offset == len(packet)
    return header, arrays
