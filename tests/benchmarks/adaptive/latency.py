"""How long after a frame a recommendation knows of it, in the demo's real processes on this machine.

A client asks the policy without pause while the demo scans; the time of a frame ends with the first answer
whose image has as many frames.
"""

import threading
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from launch.commands.demo import DemoOptions, demo_config, run_demo
from stream.record.scan import Scan
from stream.steering.policy_client import PolicyClient

N_FRAMES, RATE_HZ, PAUSE_S = 400, 100.0, 0.01


class Asking:
    """Asks a policy until told to stop, in a thread of its own; a context manager."""

    def __init__(self, address: str) -> None:
        self._client, self._stopping = PolicyClient(address), threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers: list[tuple[float, float, int]] = []  # when, after how long, frames seen

    def __enter__(self) -> "Asking":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stopping.is_set():
            self._client.ask(np.zeros((0, 2)), 32)
            give_up = time.monotonic() + 1.0
            while time.monotonic() < give_up and not self._stopping.wait(PAUSE_S / 5):
                if (advice := self._client.poll()) is not None:
                    seen = advice.recommendation.frames_seen
                    self.answers.append((time.monotonic(), advice.age_s, seen))
                    break
            self._stopping.wait(PAUSE_S)
        self._client.close()


def steered_demo_times(address: str, folder: Path) -> dict[str, float]:
    """Return the times of frames to recommendations, and of questions to answers, ms.

    Parameters
    ----------
    address : str
        Where the policy is to listen, on a free port.
    folder : Path
        For the demo.
    """
    scans: list[Scan] = []
    options = DemoOptions(
        save=folder, rate_hz=RATE_HZ, n_frames=N_FRAMES, sample="siemens", seed=7, stores=False
    )
    # Wider than the demo's scan: what is recommended is not measured here.
    config = demo_config(options, {"address": address, "limits": ((-1.0, 6.0), (-1.0, 6.0))})
    with Asking(address) as asking:
        run_demo(options, config, Console(quiet=True), on_scan=scans.append)
    received_s = np.sort(scans[0].column("received_s").read(np.arange(N_FRAMES)))
    answered_s, ages_s, seen = map(np.array, zip(*asking.answers, strict=True))
    first = np.searchsorted(np.maximum.accumulate(seen), np.arange(1, N_FRAMES + 1))
    told = first < len(seen)
    waited_s = answered_s[first[told]] - received_s[told]
    return {
        "frame_to_recommendation_ms_p50": float(np.median(waited_s) * 1e3),
        "frame_to_recommendation_ms_p95": float(np.quantile(waited_s, 0.95) * 1e3),
        "question_to_answer_ms_p95": float(np.quantile(ages_s, 0.95) * 1e3),
        "frames_never_known": int((~told).sum()),
    }
