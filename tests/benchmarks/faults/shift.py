"""A shift: the supervisor is killed, and hundreds of short series follow each other."""

import os
from pathlib import Path

from tests.benchmarks.figures import Figures
from tests.helpers.launch.commands import processes_of
from tests.helpers.letter import scan_sample
from tests.helpers.shift import ITSELF, growth_over_series, killed_and_resumed

N_SERIES, N_WARM = 720, 60
MOST_GROWTH_MB = 5.0
MOST_OPEN = 16  # of the last scan a process may be about to look at a file, or to let go of it
SHARED_MEMORY = Path("/dev/shm")


def supervisor_killed(folder: Path, in_full: bool) -> Figures:
    """Kill -9 of the supervisor, and with it of all: one command goes on, and what was recorded counts."""
    folder.mkdir(parents=True)
    n_side, rate_hz, kill_at = (25, 50.0, 200) if in_full else (12, 20.0, 20)
    resumed = killed_and_resumed(folder, "--resume", n_side=n_side, rate_hz=rate_hz, kill_at=kill_at)
    scan, n = resumed.scan, resumed.n_recorded
    n_kept = scan["frames_recorded"]
    is_accounted = n_kept == scan["frames_refined"] + scan["frames_without_position"]
    lost = max(n - n_kept, 0)
    return {
        "passed": lost == 0 and is_accounted and scan["frames_pending"] == 0,
        "frames_recorded_before": n,
        "frames_recorded": n_kept,
        "frames_recorded_lost": lost,
        "found": f"{n} recorded before, {n_kept} in the end, {lost} of them lost, none pending",
    }


def many_series(folder: Path, in_full: bool) -> Figures:
    """Short series back to back: what processes hold, and what is left when the run has ended."""
    n_warm, n_series = (N_WARM, N_SERIES) if in_full else (3, 8)
    before = _shared_memory()
    grown = growth_over_series(folder, scan_sample().first(16), n_warm, n_series)
    left = [line for line in processes_of(folder) if str(os.getpid()) not in line]
    stages = {name: held for name, held in grown.items() if name != ITSELF}
    memory_mb = max(held.memory_mb for held in stages.values())
    n_files, n_maps = (max(counts) for counts in zip(*(held[:2] for held in grown.values()), strict=True))
    n_shared = len(_shared_memory() - before)
    return {
        "passed": memory_mb < MOST_GROWTH_MB and n_files <= MOST_OPEN and n_shared == len(left) == 0,
        "series": n_series,
        "memory_growth_mb": memory_mb,
        "descriptors_growth": n_files,
        "maps_growth": n_maps,
        "shared_memory_left": n_shared,
        "processes_left": len(left),
        "found": f"{n_series} series: {memory_mb:.1f} MB and {n_files} descriptors more, "
        f"{len(left)} processes and {n_shared} pieces of shared memory left",
    }


def _shared_memory() -> set[str]:
    return {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
