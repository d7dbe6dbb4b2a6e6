"""The `init` command: a first configuration, out of what a scan, a detector, documents and the user tell."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from launch.commands.check import received
from launch.config.config import Config
from launch.config.file import RECIPES, from_override
from launch.config.reading import checked, parse, read_mapping
from launch.init.from_detector import tell_of_start
from launch.init.from_documents import documents_in, tell_of_documents
from launch.init.from_scan import tell_of_scan
from launch.init.questions import Question, left_open, missing
from launch.init.text import configuration_text
from launch.init.told import Told
from launch.outputs import check_outputs
from operators.arrays import Mask
from stream.atomic import written_atomically
from stream.detector.config import DetectorConfig
from stream.detector.dialects import DIALECTS, formats_of
from stream.detector.protocol import DetectorMessageError, StartMessage
from stream.documents.codec import Document, DocumentError, decode_document
from stream.documents.config import PositionsConfig

_USUAL = RECIPES / "beamline.yaml"
Ask = Callable[[Question], str]  # raises EOFError or the like where nobody answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Tellers:
    """Who is asked.

    Attributes
    ----------
    overrides : sequence of str
        "section.key=value", of the user, who is always right.
    detector : str or None
        Address of a detector whose next start message is waited for.
    documents : str or None
        A file of bluesky documents, or the address where they are published.
    scan : Path or None
        A recorded scan.
    timeout_s : float
        To wait for what comes over an address.
    """

    overrides: Sequence[str] = ()
    detector: str | None = None
    documents: str | None = None
    scan: Path | None = None
    timeout_s: float = 30.0

    @property
    def files(self) -> list[Path]:
        """The files that are read."""
        named = [Path(self.documents)] if self.documents and "://" not in self.documents else []
        return [*named, *([self.scan] if self.scan else [])]


def init(
    path: Path, tellers: Tellers, *, ask: Ask | None, say: Callable[[str], object], overwrite: bool
) -> None:
    """Writes the configuration.

    Parameters
    ----------
    path : Path
        The file. A mask that a scan brings becomes NAME-mask.npy beside it.
    tellers : Tellers
    ask : callable, optional
        Asks the user what nobody told; without it that is an error.
    say : callable
        Gets lines for the user.
    overwrite : bool
        Whether files that exist are replaced.

    Raises
    ------
    ValueError
        If something cannot be read, is not told, or makes no configuration.
    """
    check_outputs({"CONFIG": path}, inputs=tellers.files, overwrite=overwrite)
    told = Told()
    mask = _hear(told, tellers, say)
    mask_file = None
    if mask is not None and ("geometry", "mask") not in told.values:
        mask_file = path.with_name(f"{path.stem}-mask.npy")
        check_outputs({"CONFIG": path, "mask": mask_file}, inputs=tellers.files, overwrite=overwrite)
    _complete(told, ask, say)
    checked(Config, told.settings(), folder=path.absolute().parent, origin_of=told.source_of)
    header = (
        "Written by `ptychostream init`. Behind each value stands who told it; lines with # alone are "
        "settings as they are when left out. `ptychostream check` tries all of it."
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if mask_file is not None:
        with written_atomically(mask_file) as file:
            np.save(file, mask)  # type: ignore[arg-type]
        told.add(str(tellers.scan), {("geometry", "mask"): mask_file.name})
    with written_atomically(path) as file:
        file.write(configuration_text(told, header).encode())
    for note in told.notes:
        say(f"note: {note}")
    for judged in told.doubts():
        say(f"doubtful: {judged.doubt}")


def _hear(told: Told, tellers: Tellers, say: Callable[[str], object]) -> Mask | None:
    """Let all tell what they know, the most certain first; return the mask of the scan."""
    for override in tellers.overrides:
        _, key, text = from_override(override)
        if len(key) != 2:
            raise ValueError(f"--set {override}: wanted section.key=value")
        told.add("--set", {key: _value(text)})
    mask = None
    if tellers.detector:
        told.add("--detector", {("detector", "address"): tellers.detector})
        _hear_detector(told, tellers, say)
    if tellers.documents:
        _hear_documents(told, tellers.documents, tellers.timeout_s, say)
    if tellers.scan is not None:
        mask = tell_of_scan(told, tellers.scan)
    for section, settings in read_mapping(_USUAL).items():
        if section == "geometry":
            continue  # of no beamline in particular
        usual = {(section, key): value for key, value in settings.items() if key != "unit"}
        told.add("as is usual", {key: value for key, value in usual.items() if key not in told.values})
    return mask


def _value(text: str) -> object:
    with suppress(ValueError):
        return int(text) if text.strip().isdigit() else float(text)  # YAML takes 75e-6 for a text
    return parse(text, "--set")


def _complete(told: Told, ask: Ask | None, say: Callable[[str], object]) -> None:
    """Have the user tell what nobody else did; a geometry that cannot be is asked for again."""
    if ask is None and (lines := missing(told)):
        raise ValueError(f"nobody told\n{lines}")
    asked: list[Question] = []
    for question in left_open(told):
        assert ask is not None  # noqa: S101 -- nothing is left open otherwise
        asked.append(question)
        told.add("as you answered", {question.key: _answer(question, ask, say)})
    while impossible := [judged for judged in told.doubts() if judged.verdict == "impossible"]:
        again = [question for question in asked if question.key[0] == "geometry"]
        if not again or ask is None:
            raise ValueError(impossible[0].doubt)
        say(impossible[0].doubt)
        for question in again:
            told.values[question.key] = _answer(question, ask, say)


def _answer(question: Question, ask: Ask, say: Callable[[str], object]) -> object:
    while True:
        try:
            return question.read(ask(question))
        except ValueError as error:
            say(str(error))


def _hear_detector(told: Told, tellers: Tellers, say: Callable[[str], object]) -> None:
    settings = {key: value for (section, key), value in told.values.items() if section == "detector"}
    section = checked(DetectorConfig, settings, folder=Path.cwd(), origin_of=lambda key: "--detector")
    takes = "; it pushes, so no other reader gets what is taken here" if section.pattern == "PULL" else ""
    say(f"waiting for {section.address} to begin a series, {tellers.timeout_s:g} s{takes}")
    spoken: str = section.format
    for parts in received(section, section.pattern, tellers.timeout_s):
        formats = formats_of(parts)
        if ("detector", "format") not in told.values and formats and spoken not in formats:
            spoken = formats[0]
            told.add(section.address, {("detector", "format"): spoken})
        try:
            message = DIALECTS[spoken]().decode(parts)
        except DetectorMessageError as error:
            raise ValueError(f"what comes from {section.address} is not {spoken}: {error}") from error
        if isinstance(message, StartMessage):
            tell_of_start(told, message.detector_description or section.address, message)
            return
    raise ValueError(f"no series began at {section.address} in {tellers.timeout_s:g} s: arm the detector")


def _hear_documents(told: Told, source: str, timeout_s: float, say: Callable[[str], object]) -> None:
    if "://" not in source:
        if not tell_of_documents(told, Path(source).name, documents_in(Path(source))):
            raise ValueError(f"{source}: no descriptor with positions is in it")
        return
    told.add("--documents", {("positions", "address"): source})
    settings = {key: value for (section, key), value in told.values.items() if section == "positions"}
    # Only whether it is safe to listen is asked here; the unit may be told by what comes.
    section = checked(
        PositionsConfig, {"unit": "um", **settings}, folder=Path.cwd(), origin_of=lambda key: "--documents"
    )
    say(f"waiting for a run at {source}, {timeout_s:g} s")
    trouble = ""
    for name, document in _documents(section, timeout_s):
        try:
            if tell_of_documents(told, source, [(name, document)]):
                return
        except DocumentError as error:
            trouble = f": {error}"
    raise ValueError(f"no descriptor with positions came from {source} in {timeout_s:g} s{trouble}")


def _documents(section: PositionsConfig, timeout_s: float) -> Iterator[tuple[str, Document]]:
    for parts in received(section, "SUB", timeout_s):
        with suppress(DocumentError):  # others may publish there as well
            yield decode_document(parts[0] if len(parts) == 1 else b"".join(parts))
