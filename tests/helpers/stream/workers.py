"""A worker for tests of the loop and of the link."""

from stream.record.batches import oldest_of
from stream.record.scan import State
from stream.stages.stage import ScanWork, UnusableScanError


class Steps:
    """A worker that notes what it is asked to do; it marks what it gets unless it is told to hold it."""

    name = "stitcher"
    inputs = ("subscriber", "positions")
    waits_for = ("refinement",)
    batch_size = 4
    deadline_s = 0.1

    def __init__(self, *, holds=False, refuses=""):
        self.holds, self.refuses = holds, refuses
        self.batches, self.calls, self.slices_left = [], [], 0
        self.lacks = ""  # memory, in the words of the error
        self.first_of = oldest_of
        self.gives_up = ""  # between arrivals, in the words of the error

    def open(self, scan):
        if self.refuses and self.refuses in scan.name:
            raise ValueError("frames are smaller than patterns")
        self.calls.append(f"open {scan.name}")
        return StepsOfScan(self, scan)

    def given(self):
        """Frames it got, in order."""
        return sorted(number for batch in self.batches for number in batch)


class StepsOfScan(ScanWork):
    def __init__(self, stage, scan):
        self.stage, self.scan = stage, scan

    def first_of(self, ready, n_most):
        return self.stage.first_of(ready, n_most)

    def handle(self, numbers):
        if self.stage.lacks:
            raise MemoryError(self.stage.lacks)
        self.stage.batches.append(numbers.tolist())
        if not self.stage.holds:
            self.scan.mark(self.stage.name, numbers, State.DONE)

    def idle(self, deadline):
        if self.stage.gives_up:
            raise UnusableScanError(self.stage.gives_up)
        self.stage.slices_left = max(self.stage.slices_left - 1, 0)
        return self.stage.slices_left > 0

    def close(self):
        self.stage.calls.append(f"close {self.scan.name}")

    def hand_over(self):
        self.stage.calls.append(f"hand over {self.scan.name}")

    def counts(self):
        return {"batches": len(self.stage.batches)}
