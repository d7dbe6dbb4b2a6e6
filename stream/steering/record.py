"""The record of a policy's decisions in the scan's folder, and the same decisions made again from it.

What a decision depended on is written before the answer leaves: the configuration, what persons restricted,
what had been measured, and what the newest image showed (the super-pixel maps where they changed, not the
image). `replay` puts the same to a new policy and compares.

    SCAN/decisions-<conversation>.log   entries: uint32 length, 16 bytes digest, zlib of a msgpack of `Entry`

The digest covers all entries from the last `Begun` on, so an entry that was changed, lost or exchanged is
noticed. Before the first image the file lies in the run's own folder, because there is no scan yet.
"""

import contextlib
import copy
import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from operators.arrays import Positions
from operators.steering.maps import SuperPixels
from stream.live.image import LiveImage
from stream.steering.config import Aims
from stream.steering.policy import Policy
from stream.wire.messages import Box, Recommendation

log = logging.getLogger(__name__)

PATTERN = "decisions-*.log"
_LAYERS = ("photons", "variance", "structure", "coverage")
_ARRAYS = ("maps", "path", "moments")
_FACTS = [name for name in LiveImage.__struct_fields__ if name not in _ARRAYS]
_LENGTH_BYTES, _DIGEST_BYTES = 4, 16


class RecordError(ValueError):
    """A record of decisions that is damaged."""


class Begun(msgspec.Struct, frozen=True, tag=True):
    """A policy that knows nothing begins: the plan is new, or the policy's process is."""

    run: str  # the plan's name of its conversation
    aims: Aims = msgspec.field(name="config")
    shape: tuple[int, int]
    illumination: bytes  # (y, x) float32


class Seen(msgspec.Struct, frozen=True):
    """An image, as far as decisions depend on it."""

    facts: dict[str, Any]  # of a `LiveImage`, all but its arrays
    n_path: int  # positions of the path that are as in the image before
    path: bytes  # the others, (frame, 2) float32
    cells: bytes  # (cell,) int32, squares of the maps that changed
    values: bytes  # (layer, cell) float32


class Asked(msgspec.Struct, frozen=True, tag=True):
    """A question and its answer."""

    n_points: int
    region: Box | None
    measured: bytes  # (point, 2) float64, motor positions since the question before
    seen: Seen | None  # None: the image is that of the question before, or there is none yet
    answer: Recommendation
    points: bytes  # (point, 2) float64, motor positions
    failed: bytes = b""  # as `measured`, of exposures that failed


Entry = Begun | Asked
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)


class DecisionRecord:
    """Writes down every decision of one policy.

    Parameters
    ----------
    scans : Path
        Folder of scans.
    spare : Path
        Folder for a record as long as no image has said which scan it belongs to.
    illumination : (y, x) float32, photons
        That the policy was made with.
    """

    def __init__(self, scans: Path, spare: Path, illumination: NDArray[np.float32]) -> None:
        self._scans, self._spare = scans, spare
        self._illumination = np.asarray(illumination, np.float32)
        self._file: Path | None = None
        self._digest = b""
        self._maps: dict[str, NDArray[np.float32]] = {}
        self._path = np.zeros((0, 2), np.float32)

    def begin(self, policy: Policy, run: str) -> None:
        """A plan's conversation begins; `policy` has just forgotten everything."""
        name = hashlib.sha256(run.encode()).hexdigest()[:12]  # what a peer calls itself is no file name
        self._file, self._digest = self._spare / f"decisions-{name}.log", b""
        _cut_off_half(self._file)
        self._maps = {layer: getattr(policy.maps, layer).copy() for layer in _LAYERS}
        self._path = np.zeros((0, 2), np.float32)
        light = self._illumination
        self._append(Begun(run, policy.aims, light.shape, light.tobytes()))

    def asked(
        self,
        policy: Policy,
        n_points: int,
        region: Box | None,
        measured: Positions,
        image: LiveImage | None,
        answer: tuple[Recommendation, Positions],
        failed: Positions = (),
    ) -> None:
        """A question was answered.

        Parameters
        ----------
        policy : Policy
            After the answer.
        n_points : int
        region : box or None
            That a person restricted it to.
        measured : (point, 2) float64
            Since the question before.
        image : LiveImage or None
            What it looked at for this question.
        answer
            Its recommendation, and the points.
        failed : (point, 2) float64
            As `measured`, of exposures that failed.
        """
        if image is not None:
            self._follow(image.scan)
        seen = None if image is None else self._seen(policy, image)
        recommendation, points = answer
        new = measured.tobytes(), np.asarray(failed, np.float64).tobytes()
        self._append(Asked(n_points, region, new[0], seen, recommendation, points.tobytes(), new[1]))

    def _seen(self, policy: Policy, image: LiveImage) -> Seen:
        now = {layer: getattr(policy.maps, layer) for layer in _LAYERS}
        changed = np.logical_or.reduce([now[layer] != self._maps[layer] for layer in _LAYERS])
        cells = np.flatnonzero(changed).astype(np.int32)
        values = np.stack([now[layer].flat[cells] for layer in _LAYERS]).astype(np.float32)
        self._maps = {layer: now[layer].copy() for layer in _LAYERS}
        before, self._path = self._path, image.path
        n_same = len(before) if np.array_equal(before, image.path[: len(before)]) else 0
        path = np.ascontiguousarray(image.path[n_same:], np.float32)
        facts = {name: getattr(image, name) for name in _FACTS}
        return Seen(facts, n_same, path.tobytes(), cells.tobytes(), values.tobytes())

    def _follow(self, scan: str) -> None:
        """Move the file to the folder of the scan that the images show."""
        folder = self._scans / Path(scan).name
        if self._file is None or self._file.parent == folder or not folder.is_dir():
            return
        before, self._file = self._file, folder / self._file.name
        _cut_off_half(self._file)
        with self._file.open("ab") as file:
            file.write(before.read_bytes())
        before.unlink()

    def _append(self, entry: Entry) -> None:
        if self._file is None:
            return
        content = zlib.compress(_ENCODER.encode(entry), 1)
        self._digest = _digest(self._digest, content)
        try:
            with self._file.open("ab") as file:
                file.write(len(content).to_bytes(_LENGTH_BYTES, "little") + self._digest + content)
        except OSError as error:
            log.warning("decisions are not recorded any more: %s", error)
            self._file = None


def _cut_off_half(file: Path) -> None:
    """Cut off an entry that a crash left half written: what comes behind it could not be read."""
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as record:
        end, n_bytes = 0, record.seek(0, os.SEEK_END)
        record.seek(0)
        while len(head := record.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
            after = end + _LENGTH_BYTES + _DIGEST_BYTES + int.from_bytes(head, "little")
            if after > n_bytes:
                break
            end = record.seek(after)
        record.truncate(end)


def read(file: Path) -> Iterator[Entry]:
    """Yields the entries of a record.

    Raises
    ------
    RecordError
        If an entry is not what was written, or ends too early; those before it have been yielded.
    """
    data, at, digest, index = file.read_bytes(), 0, b"", 0
    while at < len(data):
        begin = at + _LENGTH_BYTES + _DIGEST_BYTES
        end = begin + int.from_bytes(data[at : at + _LENGTH_BYTES], "little")
        written, content = data[at + _LENGTH_BYTES : begin], data[begin:end]
        begins = _digest(b"", content) == written
        if not begins and _digest(digest, content) != written:
            raise RecordError(f"{file}: entry {index} is not what was written")
        entry = _decoded(content)
        if entry is None or begins != isinstance(entry, Begun):
            raise RecordError(f"{file}: entry {index} is no entry of such a record")
        yield entry
        at, digest, index = end, written, index + 1


def _decoded(content: bytes) -> Entry | None:
    try:
        return _DECODER.decode(zlib.decompress(content))
    except (msgspec.DecodeError, zlib.error):
        return None


def _digest(before: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(before + content, digest_size=_DIGEST_BYTES).digest()


class Replayed(msgspec.Struct, frozen=True):
    """A decision made again.

    Attributes
    ----------
    answer : Recommendation
        As it was recorded.
    n_points : int
        That it recommended.
    difference : str
        What is not the same now, "" if every bit is.
    """

    answer: Recommendation
    n_points: int
    difference: str


def replay(file: Path) -> Iterator[Replayed]:
    """Yields every decision of a record, made again by a new policy.

    Raises
    ------
    RecordError
        If the record is damaged.
    """
    again: _Again | None = None
    for entry in read(file):
        if isinstance(entry, Begun):
            again = _Again(entry)
        elif again is None:
            raise RecordError(f"{file}: a question before anything has begun")
        else:
            yield again.answer(entry)


class _Again:
    """A policy to which recorded questions are put."""

    def __init__(self, begun: Begun) -> None:
        illumination = np.frombuffer(begun.illumination, np.float32).reshape(begun.shape)
        self._policy = Policy(begun.aims, illumination)
        self._measured: Positions = np.zeros((0, 2))
        self._path = np.zeros((0, 2), np.float32)

    def answer(self, asked: Asked) -> Replayed:
        policy, recorded = self._policy, asked.answer
        policy.restrict(asked.region)
        self._measured = np.concatenate([self._measured, np.frombuffer(asked.measured).reshape(-1, 2)])
        policy.count(self._measured)
        policy.give_up(np.concatenate([policy.failed, np.frombuffer(asked.failed).reshape(-1, 2)]))
        if asked.seen is not None:
            policy.look(self._image(asked.seen), self._maps(asked.seen))
        answer, points = policy.recommend(
            asked.n_points, run=recorded.run, question=recorded.question, after=recorded.sequence - 1
        )
        different = [
            name for name in answer.__struct_fields__ if getattr(answer, name) != getattr(recorded, name)
        ]
        if points.tobytes() != asked.points:
            different.insert(0, "points")
        return Replayed(recorded, len(asked.points) // 16, ", ".join(different))

    def _maps(self, seen: Seen) -> SuperPixels:
        maps = copy.deepcopy(self._policy.maps)
        cells = np.frombuffer(seen.cells, np.int32)
        for layer, values in zip(_LAYERS, np.frombuffer(seen.values, np.float32).reshape(4, -1), strict=True):
            getattr(maps, layer).flat[cells] = values
        return maps

    def _image(self, seen: Seen) -> LiveImage:
        new = np.frombuffer(seen.path, np.float32).reshape(-1, 2)
        self._path = np.concatenate([self._path[: seen.n_path], new])
        nothing = np.zeros((0, 0), np.float32)
        return LiveImage(
            maps={
                "object": nothing.astype(np.complex64),
                "sigma": nothing,
                "photons": nothing,
                "source": nothing.astype(np.uint8),
            },
            path=self._path,
            **seen.facts,
        )
