"""What became of things that were tried before a run, one finding for each."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple, TypeAlias

from stream.stages.refusals import in_words

Result = Literal["OK", "WARNING", "TIMEOUT", "ERROR"]


class Finding(NamedTuple):
    """What became of one thing that was tried; a warning keeps no run from beginning."""

    what: str
    result: Result
    detail: str

    @property
    def is_failure(self) -> bool:
        """Whether a run cannot do with it."""
        return self.result in ("TIMEOUT", "ERROR")


Findings: TypeAlias = Iterator[Finding]


def caught(what: str, find: Callable[[], Findings]) -> Findings:
    """Yields what `find` does; an error that ends it becomes its last finding, about `what`."""
    try:
        yield from find()
    except TimeoutError as error:
        yield Finding(what, "TIMEOUT", str(error))
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        yield Finding(what, "ERROR", in_words(error))
