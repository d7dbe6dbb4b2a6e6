"""What more than one test module needs; test modules never import from each other.

Helpers of one room lie in a folder of its name, those of the whole pipeline here:

- `pipeline`: all processes of a run with a beamline around them, for `tests/end_to_end`
- `letter`: a sample without any symmetry and what a detector counts of it, independent of `operators`
- `recorded_data`: where scans of real beamlines lie, and a mark that skips without them
- `documentation`: the code blocks of the pages under `docs`
- `operators`: scenes that refinement solves, small networks, stand-ins for CuPy and for CUDA
- `stream`: scans as their writers leave them, and as networks do; a detector, bluesky's documents, a server
  of live images, and a client of the stitcher, each without the rest of the pipeline; policies and their
  decisions; a clock
- `launch`: commands as users call them; configurations, runs and stages with nothing to do; devices and plans
  for a RunEngine; the page in a browser; files of other programs; recipes that train in a second

Fixtures are in `conftest.py`: of all tests in `tests/`, of a room in its folder.
"""
