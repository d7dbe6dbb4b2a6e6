"""A fly scan as ophyd-async publishes it, and its HDF5 file, which grows as a test wants it."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tests.helpers.stream.documents import Documents

FIELDS = ("panda-y", "panda-x")


class FlownRun:
    """Documents of one run whose positions lie in a file.

    Parameters
    ----------
    path : Path
        Of the file; it is there from the first `write`.
    values : (capture, 2)
        y and x as captured.
    shape : sequence of int
        Of a field, as its descriptor says: captures of an event.
    uri : str
        What the documents call the file, its path by default.
    start : mapping
        What else the start document says.
    """

    def __init__(
        self, path: Path, values: np.ndarray, *, shape: Any = (1,), uri: str = "", **start: Any
    ) -> None:
        self.path, self.values, self.uid = path, values, "fly"
        key = {"source": "x", "dtype": "number", "external": "STREAM:", "units": "um"}
        uri = uri or f"file://localhost{path}"
        self.opening: Documents = [
            ("start", {"uid": self.uid, **start}),
            (
                "descriptor",
                {
                    "uid": "fly-d",
                    "run_start": self.uid,
                    "name": "panda",
                    "data_keys": {field: {**key, "shape": list(shape)} for field in FIELDS},
                    "hints": {"panda": {"fields": list(FIELDS)}},
                },
            ),
            *(
                (
                    "stream_resource",
                    {
                        "uid": f"of-{field}",
                        "run_start": self.uid,
                        "data_key": field,
                        "mimetype": "application/x-hdf5",
                        "uri": uri,
                        "parameters": {"dataset": f"/{field}", "chunk_shape": [1024]},
                    },
                )
                for field in FIELDS
            ),
        ]
        self.closing: Documents = [("stop", {"uid": "fly-s", "run_start": self.uid})]

    def datums(self, start: int, stop: int, fields: tuple[str, ...] = FIELDS) -> Documents:
        """That these indices are written, of both fields by default."""
        return [
            (
                "stream_datum",
                {
                    "uid": f"of-{field}/{start}",
                    "stream_resource": f"of-{field}",
                    "descriptor": "fly-d",
                    "indices": {"start": start, "stop": stop},
                    "seq_nums": {"start": start + 1, "stop": stop + 1},
                },
            )
            for field in fields
        ]

    def write(self, n_captures: int, fields: tuple[str, ...] = FIELDS) -> None:
        """Makes the file hold so many captures."""
        with h5py.File(self.path, "a", libver="latest") as file:
            for field in fields:
                if field not in file:
                    file.create_dataset(field, (0,), float, maxshape=(None,), chunks=(1024,))
                file[field].resize(n_captures, axis=0)
                file[field][:] = self.values[:n_captures, FIELDS.index(field)]
