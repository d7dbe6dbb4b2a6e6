"""What a process that was forked, or started from nothing, finds: its `main` writes it to a file."""

import json
import os
import random
import sys
import time
from pathlib import Path

SEEN: list[str] = []  # by tasks in this process


def main(arguments: list[str]) -> int:
    """Write what is found to the file of the first argument; leave with the status of the second, or stay."""
    file, status, *_ = arguments
    print("to standard output")
    print("to standard error", file=sys.stderr)
    SEEN.append(file)
    found = {
        "parent": os.getppid(),
        "group": os.getpgid(0) - os.getpid(),
        "descriptors": [int(link.name) for link in Path("/proc/self/fd").iterdir()],
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "arguments": sys.argv[1:],
        "seen": SEEN,
        "random": random.random(),
        "loaded": [name for name in ("loaded_once", "begins_a_thread") if name in sys.modules],
        "input": sys.stdin.read(),
    }
    Path(f"{file}.part").write_text(json.dumps(found))
    Path(f"{file}.part").rename(file)
    if status == "stay":
        time.sleep(600)
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
