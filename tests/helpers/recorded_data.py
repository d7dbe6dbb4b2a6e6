"""Where scans that real beamlines recorded lie, and how to skip a test without them."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason=f"the recorded data are not at {SHARED_DATA}"
)
