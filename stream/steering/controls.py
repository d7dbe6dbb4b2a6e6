"""What persons have said to a steered run: hold, resume, stop, a region of interest.

A policy process that was started anew takes over what the plan knows (`adopt`), so a hold outlives it.
"""

from collections import deque

from stream.wire.messages import Box, Consult, Control, Deed

ENDED = "end"  # source of a plan's last decision
MOST_CONTROLS = 64  # that a message holds; of more the last ones count


class ControlLog:
    """The words of persons in order, and what they amount to.

    Attributes
    ----------
    number : int
        Of the last word, 0 before there is one.
    held : bool
        Whether nothing is measured until somebody resumes.
    holder : str
        Who held the run last, "" where that is not known.
    stopper : Control or None
        Who ended the run.
    region : ((float, float), (float, float)) or None
        Motor positions, lowest and highest y and x, within which to measure.
    said : deque of Control
    """

    def __init__(self) -> None:
        self.number, self.held, self.holder = 0, False, ""
        self.region: Box | None = None
        self.stopper: Control | None = None
        self.said: deque[Control] = deque(maxlen=MOST_CONTROLS)
        self._n_read = 0

    def say(self, deed: Deed, region: Box | None = None, by: str = "") -> Control:
        """Take a new word and return it with its number.

        Raises
        ------
        ValueError
            If the run has been stopped, or a region is missing, empty or given with another deed.
        """
        if self.stopper is not None:
            raise ValueError(f"{deed}: the run was stopped by {self.stopper.by or 'a person'}")
        if (region is None) == (deed == "region") or any(low >= high for low, high in region or ()):
            wanted = "((y_low, y_high), (x_low, x_high))" if deed == "region" else "no region"
            raise ValueError(f"{deed}: expected {wanted}, got {region}")
        control = Control(number=self.number + 1, deed=deed, region=region, by=by)
        self.take(control)
        return control

    def take(self, control: Control) -> None:
        """Take a word that somebody numbered; one that is known already changes nothing."""
        if control.number <= self.number:
            return
        self.number = control.number
        self.said.append(control)
        match control.deed:
            case "hold" | "resume":
                self.held = control.deed == "hold"
                self.holder = control.by
            case "stop":
                self.stopper = control
            case "region" | "clear":
                self.region = control.region

    def since(self, number: int) -> tuple[Control, ...]:
        """Return the words after the one with this number."""
        return tuple(control for control in self.said if control.number > number)

    def news(self) -> tuple[Control, ...]:
        """Return the words that came since the last call."""
        before, self._n_read = self._n_read, self.number
        return self.since(before)

    def adopt(self, consult: Consult) -> None:
        """Take over from a plan that knows more: whoever heard it before is gone."""
        if consult.heard > self.number:
            self.number, self.held, self.region = consult.heard, consult.held, consult.region


def sentence(control: Control) -> str:
    """Return who said what, for people."""
    where = f" y {control.region[0]}, x {control.region[1]}" if control.region else ""
    what = {"clear": "region cleared", "hold": "held", "resume": "resumed", "stop": "stopped"}
    return f"{what.get(control.deed, control.deed)}{where} by {control.by or 'a person'}"
