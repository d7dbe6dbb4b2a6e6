"""`python -m launch` is `ptychostream`."""

from launch.cli import main

main()
