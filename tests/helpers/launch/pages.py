"""A viewer in a thread, and what a browser shows of it, for tests of the page."""

import asyncio
import contextlib
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from launch.config.sections import ViewerConfig
from launch.page.server import run_viewer
from stream.wire.sockets import Endpoint

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
SIZES = {"large": (1920, 1080), "laptop": (1280, 800), "small": (1024, 768), "phone": (390, 844)}

# Colour (red, green, blue, alpha) of the left panel at a part of the image's width and height, as drawn.
COLOUR_AT = """([x, y, nRows, nColumns]) => {
  const canvas = document.querySelector(".panel .image");
  const scale = Math.min((canvas.width - 8) / nColumns, (canvas.height - 8) / nRows);
  const column = canvas.width / 2 + (x - 0.5) * nColumns * scale;
  const row = canvas.height / 2 + (y - 0.5) * nRows * scale;
  return [...canvas.getContext("2d").getImageData(column, row, 1, 1).data];
}"""


@contextlib.contextmanager
def viewer(address, port=0, policy=None, records=None, facts=None, monitor=None, **settings):
    """A running viewer; gives its URL."""
    ready, stopping, urls = threading.Event(), threading.Event(), []

    def on_ready(url):
        urls.append(url)
        ready.set()

    config = ViewerConfig(port=port, **settings)
    told = {"records": records, "facts": facts, "monitor": monitor}
    told |= {"on_ready": on_ready, "stopping": stopping}
    thread = threading.Thread(
        target=run_viewer, args=(config, Endpoint(address=address), policy), kwargs=told
    )
    thread.start()
    try:
        assert ready.wait(10.0)
        yield urls[0]
    finally:
        stopping.set()
        thread.join()


def outcome(coroutine):
    """Of a coroutine, run in a thread of its own: in this one, the loop of a browser may be running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


def corner_object():
    """Dark except for its right top quarter, with an unknown pixel block at the right bottom."""
    object_ = np.full((40, 60), 0.5, np.complex64)
    object_[:20, 30:] = 1.0
    object_[30:, 50:] = 0.0
    return object_


def wait_for_text(page, selector, text):
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_text(text, timeout=10_000)


def wait_for_version(page, version):
    page.wait_for_selector(f'body[data-version="{version}"]')


def colour_at(page, x, y, shape=(40, 60)):
    return page.evaluate(COLOUR_AT, [x, y, *shape])
