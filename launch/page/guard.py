"""Who is answered by the page: browsers that were sent to it by one of its own names, and by no other page.

Any site can give a name of its own the address of this computer, and its scripts would then read the image
and steer the scan. So the name that a browser asks for must be the page's. An address cannot be given away.
Programs that watch the run ask by the same names, and bear a token where other machines reach the page.
"""

import ipaddress
import secrets
import socket
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from launch.config.sections import LOOPBACK, ViewerConfig

MOST_IN_A_NAME = 200  # bytes of a part of the path: the name of a file ends at 255
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def guard(config: ViewerConfig) -> Middleware:
    """Returns what stands before every answer of the page."""
    names = {name.lower() for name in (*LOOPBACK, config.host, *config.hosts)}
    if config.host not in LOOPBACK:
        names.add(socket.gethostname().lower())

    @web.middleware
    async def stand_before(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check(request, names, config.hosts)
            if max(len(part.encode(errors="replace")) for part in request.path.split("/")) > MOST_IN_A_NAME:
                raise web.HTTPNotFound(text="nothing has a name of that length")
            response = await handler(request)
        except web.HTTPException as refusal:
            refusal.headers.update(HEADERS)
            raise
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    return stand_before


def _check(request: web.Request, names: Collection[str], proxied: Collection[str]) -> None:
    """Raise HTTPForbidden unless the browser asked for this page, and itself.

    To a browser the page may be that of a proxy, which has TLS and is one of the hosts `proxied`.
    """
    asked, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    host = _host_of(asked)
    if host not in names and host != _own_address(request):
        raise web.HTTPForbidden(
            text=f"this page does not answer to {host!r}: `viewer.hosts` in the configuration names its hosts"
        )
    own = {f"http://{asked}", *(f"https://{name}" for name in (asked, *proxied))}
    if origin is not None and origin not in own:
        raise web.HTTPForbidden(text=f"a page of {origin!r} may not read the live image")


def _host_of(asked: str) -> str:
    try:
        return (urlsplit(f"//{asked}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _own_address(request: web.Request) -> str:
    """Return the address at which the browser has reached this computer, as it is written in a URL."""
    reached = request.transport.get_extra_info("sockname") if request.transport else None
    if not reached:
        return ""
    address = ipaddress.ip_address(reached[0].partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def asker(request: web.Request, config: ViewerConfig) -> str:
    """Returns the address of who asks, "" for somebody on this computer.

    A proxy on this computer says in `X-Forwarded-For` for whom it asks, as the last of those who stand
    there: the others anybody may have written.
    """
    address = request.remote or ""
    if address in LOOPBACK and not config.is_private:
        address = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    try:
        return "" if ipaddress.ip_address(address).is_loopback else address
    except ValueError:
        return ""


def is_secret(given: str, secret: str) -> bool:
    """Says whether the two are the same, in a time that does not tell how alike; a header may be no text."""
    return secrets.compare_digest(given.encode(errors="replace"), secret.encode())


def bearer(config: ViewerConfig) -> Callable[[web.Request], None]:
    """Returns what refuses programs that watch the run unless they may: it raises HTTPException.

    Where this computer alone reaches the page all may, as all see it; elsewhere, and where a token is set,
    who bears it, or that of programs that steer.

    Raises
    ------
    ValueError
        If the file of a token cannot be used.
    """
    token, is_open = config.read_token(), config.is_private
    tokens = [each for each in (token, config.read_token("steering_token")) if each]

    def check(request: web.Request) -> None:
        if not token and is_open:
            return
        if not tokens:
            raise web.HTTPForbidden(
                text="other machines are told with a token alone: `viewer.metrics_token` names its file"
            )
        if not any(bears(request, each) for each in tokens):
            raise web.HTTPUnauthorized(
                text="wanted `Authorization: Bearer` with the token of `viewer.metrics_token`",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return check


def bears(request: web.Request, token: str) -> bool:
    """Says whether the request has this token, as `Authorization: Bearer`."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme.lower() == "bearer" and is_secret(given.strip(), token)
