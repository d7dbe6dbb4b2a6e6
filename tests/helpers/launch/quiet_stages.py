"""Stages with nothing to do, for processes whose start, death and end are tested."""

import os
import signal
import time
from pathlib import Path

from launch.config.run_file import ResolvedRun
from stream.atomic import DiskFullError


class Quiet:
    inlet = None

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._turns = 0

    def handle(self, messages) -> None:
        raise AssertionError("a stage without an inlet gets no messages")

    def idle(self, now: float) -> None:
        self._turns += 1

    def close(self) -> None:
        with (self._folder / "closed").open("a") as file:
            file.write(f"{self._name}\n")

    def progress(self) -> tuple[str, dict[str, int]]:
        return "", {"turns": self._turns}


class Refusing(Quiet):
    def progress(self) -> tuple[str, dict[str, int]]:
        return "", {"refused": 1}


def detector_without_room(run: ResolvedRun) -> Quiet:
    return Refusing("subscriber", run.config.save)


def first(run: ResolvedRun) -> Quiet:
    return Quiet("first", run.config.save)


def second(run: ResolvedRun) -> Quiet:
    return Quiet("second", run.config.save)


def third(run: ResolvedRun) -> Quiet:
    return Quiet("third", run.config.save)


def refusing(run: ResolvedRun) -> Quiet:
    raise ValueError("probe.npy: probe has shape (3, 3), patterns have 64 x 64 pixels")


class Dying(Quiet):
    def idle(self, now: float) -> None:
        super().idle(now)
        if self._turns > 5:  # its word that it is ready has left
            os.kill(os.getpid(), signal.SIGKILL)


def dying(run: ResolvedRun) -> Quiet:
    return Dying("dying", run.config.save)


class Failing(Quiet):
    def idle(self, now: float) -> None:
        raise TypeError("no such thing")


def failing(run: ResolvedRun) -> Quiet:
    return Failing("failing", run.config.save)


class FullDisk(Quiet):
    def idle(self, now: float) -> None:
        raise DiskFullError("no room for 100 frames in /scans")


def full_disk(run: ResolvedRun) -> Quiet:
    return FullDisk("full_disk", run.config.save)


def slow(run: ResolvedRun) -> Quiet:
    time.sleep(600)
    return Quiet("slow", run.config.save)


class Deaf(Quiet):
    """Does not hear that it should stop."""

    def idle(self, now: float) -> None:
        if self._turns:
            time.sleep(600)
        self._turns += 1


def deaf(run: ResolvedRun) -> Quiet:
    return Deaf("deaf", run.config.save)


class Sleeping(Quiet):
    """Blocks once, as at a lock that nobody gives back soon."""

    def idle(self, now: float) -> None:
        if (self._folder / "sleep").exists():
            (self._folder / "sleep").unlink()
            time.sleep(0.5)
        self._turns += 1


def sleeping(run: ResolvedRun) -> Quiet:
    return Sleeping("sleeping", run.config.save)
