"""Live images for tests, and the page's packets read back."""

import json
from typing import Any

import numpy as np

from stream.live.image import LiveImage


def live_image(object_: Any, **fields: Any) -> LiveImage:
    """An image of `object_` of which nothing else is remarkable but these fields."""
    object_ = np.asarray(object_, np.complex64)
    maps = {
        "object": object_,
        "sigma": np.full(object_.shape, 0.1, np.float32),
        "photons": np.full(object_.shape, 50, np.float32),
        "source": (object_ != 0).astype(np.uint8),
    }
    maps |= {name: fields.pop(name) for name in maps.keys() & fields.keys()}
    values = {
        "maps": maps,
        "path": np.zeros((0, 2), np.float32),
        "origin_px": (0, 0),
        "object_pixel_m": 1e-8,
        "scan": "0000-star",
        "run_id": "run",
        "version": 1,
        "frames_seen": 10,
        "epoch": 0.0,
        "model": "",
        "config_hash": "",
    }
    return LiveImage(**values | fields)


def decode_picture(packet: bytes) -> tuple[dict[str, Any], np.ndarray, dict[str, np.ndarray]]:
    """The header, path and maps of a packet, as the page's script reads them."""
    n_header = int.from_bytes(packet[:4], "little")
    header = json.loads(packet[4 : 4 + n_header])
    assert n_header % 4 == 0
    path = np.frombuffer(packet, "<f4", 2 * header["n_path"], 4 + n_header).reshape(-1, 2)
    maps = np.frombuffer(packet, "<u2", offset=4 + n_header + path.nbytes)
    names = [entry["name"] for entry in header["maps"]]
    return header, path, dict(zip(names, maps.reshape(len(names), *header["shape"]), strict=True))
