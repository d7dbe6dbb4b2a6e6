"""A proxy with TLS before a page, under a path of its own, as facilities have one."""

import asyncio
import contextlib
import queue
import ssl
import subprocess
import threading
from functools import partial
from pathlib import Path

from aiohttp import ClientSession, WSMsgType, web

CERTIFICATE = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout {} -out {}"
OWN = {"connection", "content-encoding", "content-length", "transfer-encoding"}  # of each way, headers
BASE = "/live/beam/"


@contextlib.contextmanager
def tls_proxy(url, folder: Path):
    """Passes what is asked for below `BASE` on to the page at `url`; gives the address of the page there."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(CERTIFICATE.format(key, certificate).split(), check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    ready = queue.SimpleQueue()

    async def serve():
        stopping = asyncio.Event()
        async with ClientSession() as session:
            app = web.Application()
            app.router.add_get(BASE + "{path:.*}", partial(_pass_on, session, url))
            runner = web.AppRunner(app, shutdown_timeout=1.0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            stop = partial(asyncio.get_running_loop().call_soon_threadsafe, stopping.set)
            ready.put((runner.addresses[0][1], stop))
            await stopping.wait()
            await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    port, stop = ready.get(timeout=10.0)
    try:
        yield f"https://127.0.0.1:{port}{BASE}"
    finally:
        stop()
        thread.join()


async def _pass_on(session, url, request):
    asked = f"{url}/{request.path_qs.removeprefix(BASE)}"
    said = {name: request.headers[name] for name in ("Host", "Origin") if name in request.headers}
    if request.headers.get("Upgrade", "").lower() != "websocket":
        async with session.get(asked, headers=said) as answer:
            headers = {name: value for name, value in answer.headers.items() if name.lower() not in OWN}
            return web.Response(status=answer.status, headers=headers, body=await answer.read())
    outside = web.WebSocketResponse()
    await outside.prepare(request)
    async with session.ws_connect(asked, headers=said) as inside:
        ways = [asyncio.create_task(_copy(*way)) for way in ((outside, inside), (inside, outside))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        await outside.close()
    await asyncio.gather(*ways)
    return outside


async def _copy(one, other):
    async for message in one:
        with contextlib.suppress(ConnectionError):  # it has hung up
            await (other.send_str if message.type == WSMsgType.TEXT else other.send_bytes)(message.data)
