"""The command `replay-decisions`: the decisions of a steered scan made again, to the last bit."""

from pathlib import Path

from rich.console import Console

from stream.documents.codec import decisions_of
from stream.steering.record import PATTERN, RecordError, replay


def replay_decisions(folder: Path, console: Console | None = None) -> int:
    """Makes all decisions of a recorded scan again; returns 0 only if each is the same to the last bit.

    Parameters
    ----------
    folder : Path
        Of the scan.
    console : rich.console.Console, optional

    Notes
    -----
    The decisions that the run's own documents hold must be among them, so a missing end is found as well.

    Raises
    ------
    ValueError
        If the scan holds no record of decisions.
    """
    console = console or Console()
    files = sorted(folder.glob(PATTERN))
    if not files:
        raise ValueError(f"{folder} holds no decisions ({PATTERN}): was the scan steered?")
    answers: set[tuple[int, str]] = set()
    n_same, is_damaged = 0, False
    for file in files:
        try:
            for again in replay(file):
                answers.add((again.answer.sequence, again.answer.map_hash))
                n_same += not again.difference
                if again.difference:
                    console.print(f"recommendation {again.answer.sequence}: not the same {again.difference}")
        except RecordError as error:
            is_damaged = True
            console.print(str(error), soft_wrap=True)
    followed = [d for d in decisions_of(folder) if d.get("source") == "agent"]
    missing = [d["sequence"] for d in followed if (d["sequence"], d["map_hash"]) not in answers]
    if missing:
        console.print(f"the run followed recommendations that are not on record: {missing}")
    console.print(f"{n_same} of {len(answers)} recommendations are the same, {len(followed)} were followed")
    return int(is_damaged or bool(missing) or n_same < len(answers))
