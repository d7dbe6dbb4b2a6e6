"""Questions on their way: so many at a time, each until it is answered, and again where the line was cut.

No sockets.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from numpy.typing import NDArray

from stream.remote.messages import Question

WINDOW = 8  # questions without an answer: what a link of a millisecond needs to be busy

Arrays = Sequence[NDArray[Any]]
OnAnswer = Callable[[Question, Arrays], None]


class _Asked(NamedTuple):
    message: Question
    arrays: Arrays
    on_answer: OnAnswer


class Asker:
    """Keeps the questions of one worker in order.

    Parameters
    ----------
    window : int
        Questions on their way at a time.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window, self._next = window, 0
        self._unasked: deque[int] = deque()
        self._open: dict[int, _Asked] = {}  # asked or not

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is owed."""
        return len(self._open) > len(self._unasked)

    def ask(self, message: Question, on_answer: OnAnswer, arrays: Arrays = ()) -> None:
        """Takes a question; `on_answer` gets its answer, once."""
        number, self._next = self._next, self._next + 1
        message = msgspec.structs.replace(message, question=number)
        self._open[number] = _Asked(message, arrays, on_answer)
        self._unasked.append(number)

    def due(self) -> list[tuple[Question, Arrays]]:
        """Returns the questions that go out now."""
        messages = []
        while self._unasked and len(self._open) - len(self._unasked) < self._window:
            asked = self._open[self._unasked.popleft()]
            messages.append((asked.message, asked.arrays))
        return messages

    def take(self, answer: Question, arrays: Arrays) -> None:
        """Passes an answer on; a second one to the same question is dropped."""
        if (asked := self._open.pop(answer.question, None)) is not None:
            asked.on_answer(answer, arrays)

    def ask_again(self) -> None:
        """Makes every question without an answer go out again, in the order in which they were taken."""
        self._unasked = deque(sorted(self._open))
