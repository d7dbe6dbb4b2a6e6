"""Follows the live image of a run; needs pyzmq, msgpack and NumPy, and nothing of ptychostream.

python plain_client.py tcp://127.0.0.1:5810 image.npz [PIPELINE.key MINE.key_secret]
"""

import sys

import msgpack
import numpy as np
import zmq.auth

# Of each map what stands where nothing is known, and its dtype; in the order of the buffers after the first.
MAPS = {"object": (0, "<c8"), "sigma": (np.inf, "<f4"), "photons": (0, "<f4"), "source": (0, "|u1")}


def follow(address, server_key=None, own_key=None):
    """Yields the figures and the maps of each version until one is final; with CURVE where there are keys."""
    with zmq.Context.instance().socket(zmq.DEALER) as socket:
        socket.linger, socket.rcvtimeo = 0, 3000  # milliseconds: a server that lives answers within a second
        if server_key:
            socket.curve_serverkey, _ = zmq.auth.load_certificate(server_key)
            socket.curve_publickey, socket.curve_secretkey = zmq.auth.load_certificate(own_key)
        socket.connect(address)
        ask(socket, type="Hello", protocol=2, role="plain client")
        tiles, figures = {}, {"scan": "", "version": -1, "is_final": False}
        while not figures["is_final"]:
            answer, arrays = ask(socket, type="Ask", scan=figures["scan"], after=figures["version"])
            if answer["type"] == "ObjectUpdate":  # otherwise NoNews
                tiles = tiles if answer["figures"]["scan"] == figures["scan"] else {}
                tiles |= {tuple(where): layers for where, *layers in zip(*arrays[:5], strict=True)}
                figures = answer["figures"]
                yield figures, assembled(tiles, answer["tile_px"], *answer["bounds"])


def ask(socket, **message):
    """Returns the answer to a message, and its arrays."""
    socket.send(msgpack.packb(message))
    head, *buffers = socket.recv_multipart()
    answer = msgpack.unpackb(head)
    if answer["type"] == "Reject":
        sys.exit(answer["reason"])
    described = zip(buffers, answer["arrays"], strict=True)
    return answer, [np.frombuffer(buffer, dtype).reshape(shape) for buffer, (dtype, shape) in described]


def assembled(tiles, side, top, left, bottom, right):
    """Returns the maps by name, each (row, column) from the absolute object pixel (top, left)."""
    maps = {name: np.full((bottom - top, right - left), *of) for name, of in MAPS.items()}
    for (row, column), layers in tiles.items():
        y, x = row * side - top, column * side - left
        for whole, tile in zip(maps.values(), layers, strict=True):
            inside = whole[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
            inside[...] = tile[max(-y, 0) :, max(-x, 0) :][: inside.shape[0], : inside.shape[1]]
    return maps


if __name__ == "__main__":
    for figures, maps in follow(sys.argv[1], *sys.argv[3:]):
        print(figures["scan"], figures["version"], figures["frames_seen"], maps["object"].shape, flush=True)
    np.savez(sys.argv[2], **maps)
