"""Which extra of the installation brings a module, for a message where it is missing.

Without extras there are the clients: `stream.client`, `watch`, `steer`, and the plans where bluesky is.
"""

_MODULES = {
    "pipeline": "scipy torch safetensors h5py hdf5plugin lz4 cbor2 msgpack pydantic pydantic_core yaml "
    "aiohttp prometheus_client matplotlib PIL tifffile",
    "beamline": "bluesky ophyd_async event_model databroker tiled bluesky_tiled_plugins",
    "fast": "numba llvmlite pyfftw openvino",
    "train": "skimage",
    "pva": "p4p",
    "panda": "pandablocks",
    "ray": "ray",
}
EXTRA_OF = {module: extra for extra, modules in _MODULES.items() for module in modules.split()}


def missing_extra(error: ImportError) -> str | None:
    """Returns what to install, such as "needs the extra 'pipeline': pip install ...".

    None if the module that could not be imported comes with no extra.
    """
    extra = EXTRA_OF.get((error.name or "").partition(".")[0])
    return extra and f"needs the extra {extra!r}: pip install 'ptychostream[{extra}]'"


def version_of(distribution: str) -> str:
    """Returns the version of what is installed under this name."""
    from importlib.metadata import PackageNotFoundError, version  # takes a while, and few ask

    try:
        return version(distribution)
    except PackageNotFoundError:  # or a checkout
        return "not installed"
