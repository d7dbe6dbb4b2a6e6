import pytest

from operators.engine.backends import Backend
from operators.engine.epie import update
from stream.stages.refinement import worker
from tests.helpers.operators.strict_cupy import strict_cupy


@pytest.fixture(params=["numpy", "strict"])
def on_both_kinds_of_arrays(request, monkeypatch):
    """Refinement runs on NumPy, then on arrays as strict as CuPy's."""
    if request.param == "numpy":
        yield
        return
    with strict_cupy() as cupy:
        monkeypatch.setattr(worker, "get_backend", lambda *_: Backend("cupy", cupy, update))
        yield
