"""The lock files are those of pyproject.toml: nothing is missing, left over, too old, or without a hash."""

import pytest
from packaging.utils import canonicalize_name

from tests.lock import EXTRAS, FOLDER, PROJECT, TORCH, brought_by_torch, pins, wanted

LOCKED = {path.stem: pins(path.read_text()) for path in sorted(FOLDER.glob("*.txt"))}
HINT = "`python -m tests.lock` writes the lock files anew"
CUDA = ("nvidia-", "cuda-", "triton", "cupy")


def test_there_is_a_file_for_each_kind_of_install():
    assert set(LOCKED) == {*EXTRAS, TORCH}


@pytest.mark.parametrize("name", EXTRAS)
def test_every_requirement_is_locked_at_a_version_that_it_allows(name):
    required = {canonicalize_name(each.name): each for each in wanted(EXTRAS[name])}
    locked = {pin.name: pin for pin in [*LOCKED[name], *LOCKED[TORCH]]}
    assert required.keys() <= locked.keys(), HINT
    for pin in [*LOCKED[name], *LOCKED[TORCH]]:
        if pin.name in required:
            assert required[pin.name].specifier.contains(pin.version), f"{pin.name} {pin.version}: {HINT}"


@pytest.mark.parametrize("name", EXTRAS)
def test_nothing_is_locked_that_nothing_requires(name):
    required = {canonicalize_name(each.name) for each in wanted(EXTRAS[name])}
    names = {pin.name for pin in [*LOCKED[name], *LOCKED[TORCH]]}
    for pin in LOCKED[name]:
        assert pin.wanted_by, pin.name
        assert pin.name in required or PROJECT not in pin.wanted_by, f"{pin.name}: {HINT}"
        assert pin.wanted_by <= names | {PROJECT}, f"{pin.name}: {HINT}"


def test_every_package_has_hashes_and_no_address():
    for name, locked in LOCKED.items():
        assert all(pin.hashes for pin in locked), name
        assert "://" not in (FOLDER / f"{name}.txt").read_text(), name


def test_what_is_used_is_what_is_tested():
    tested = {(pin.name, pin.version) for pin in [*LOCKED["dev"], *LOCKED[TORCH]]}
    for name in EXTRAS:
        assert {(pin.name, pin.version) for pin in LOCKED[name]} <= tested, name


def test_without_the_file_of_torch_nothing_of_cuda_comes():
    for name in ("client", "beamline"):
        assert not [pin.name for pin in LOCKED[name] if pin.name.startswith((*CUDA, TORCH))], name
    assert {pin.name for pin in LOCKED["client"]}.isdisjoint({"torch", "scipy", "h5py", "bluesky"})
    assert TORCH in {pin.name for pin in LOCKED[TORCH]}


TEXT = r"""# a comment
numpy==2.1.0 ; python_full_version >= '3.11' \
    --hash=sha256:{0}
    # via
    #   ptychostream (pyproject.toml)
    #   torch
torch==2.9.0 \
    --hash=sha256:{0} \
    --hash=sha256:{0}
    # via ptychostream (pyproject.toml)
triton==3.1.0 ; sys_platform == 'linux' \
    --hash=sha256:{0}
    # via torch
""".replace("{0}", "0" * 64)


def test_a_lock_file_is_read_as_it_is_written():
    numpy, torch, triton = pins(TEXT)
    assert numpy.wanted_by == {PROJECT, "torch"}
    assert (str(torch.version), len(torch.hashes), torch.marker) == ("2.9.0", 2, None)
    assert triton.marker is not None and triton.marker.evaluate({"sys_platform": "linux"})
    assert brought_by_torch([numpy, torch, triton]) == {"torch", "triton"}
