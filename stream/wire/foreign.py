"""What strangers send, put into words: any value at all, on one short line."""

import reprlib
from typing import Any

MOST_CHARACTERS = 80
_MOST_BITS = 128


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 4, 4, 4
        self.maxstring = self.maxother = MOST_CHARACTERS

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out numbers of thousands of digits.
        return repr(x) if x.bit_length() <= _MOST_BITS else f"<a number of {x.bit_length()} bits>"


_SHORT = _Short()


def in_short(value: Any) -> str:
    """Returns `value` as an error may quote it: printable, on one line, never long, of whatever it is.

    Examples
    --------
    >>> in_short([2, "a"]), in_short(10**5000)
    ("[2, 'a']", '<a number of 16610 bits>')
    """
    return printable(_SHORT.repr(value), MOST_CHARACTERS)


def printable(text: str, most: int) -> str:
    """Returns the first `most` characters of `text` on one line, without what would steer a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."
