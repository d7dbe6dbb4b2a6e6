"""`python -m launch.on_ray.command PARENT WORDS...`: a command of ptychostream that dies with its parent."""

import os
import sys

from launch.child_process import die_with

if __name__ == "__main__":
    die_with(int(sys.argv[1]))  # what is asked of the system for this process stays with it
    os.execv(sys.executable, [sys.executable, "-P", "-m", "launch", *sys.argv[2:]])
