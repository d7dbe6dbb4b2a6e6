"""/steer: words of our own page, and programs that steer: agents, SPEC, Tango, Sardana, LabVIEW.

    GET /steer     how the steering stands and what was recommended last, JSON
    POST /steer    a JSON object: `do` says what (launch/page/steering_agent.py); the answer is JSON as well

A program bears the token of `viewer.steering_token`; without one it is refused, on this computer too. A
browser is never taken for a program: it says which page asks, and pages have a token of their own.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import msgspec
from aiohttp import web

from launch.config.sections import ViewerConfig
from launch.page.guard import asker, bears, is_secret
from launch.page.steering_agent import (
    ConflictError,
    End,
    Report,
    Request,
    SteeringAgent,
    Suggest,
    deed_of,
    request_of,
)
from launch.page.steering_feed import SteeringFeed, Words
from stream.plain_json import plain_json

MOST_BYTES = 1 << 18  # of a request: 4096 points twice
MOST_WAITING = 8  # requests; further ones are refused
REQUESTS_PER_S, AT_ONCE = 20.0, 40.0
BODY_S = 5.0  # for a request to come whole
TOLD = (  # of how the steering stands, for programs
    *("plan", "asked_s", "held", "stopped", "region", "limits", "unit", "n_measured", "n_failed", "n_left"),
    *("points", "sequence", "dose_peak", "max_dose", "predicted_gain", "realised_gain", "reasons"),
    *("source", "reason", "said", "trouble"),
)


class Allowance:
    """So many requests a second, and some more at once.

    Parameters
    ----------
    per_s, at_once : float
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, per_s: float, at_once: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._at_once, self._clock = per_s, at_once, clock
        self._left, self._at = at_once, clock()

    def take(self) -> bool:
        """Returns whether one more is allowed now, and counts it."""
        now = self._clock()
        self._left, self._at = min(self._left + (now - self._at) * self._per_s, self._at_once), now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class SteeringRoutes:
    """Answers who steers by HTTP.

    Parameters
    ----------
    config : ViewerConfig
        Who may.
    feed : SteeringFeed or None
        None where nothing can be steered.
    page_token : str
        That our own page bears, "" where it may not steer.
    clock : callable
        Monotonic seconds.
    """

    def __init__(
        self,
        config: ViewerConfig,
        feed: SteeringFeed | None,
        page_token: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._feed, self._page_token = config, feed, page_token
        self._token = config.read_token("steering_token")
        self._agent = None if feed is None else SteeringAgent(feed.plan)
        self._allowance = Allowance(REQUESTS_PER_S, AT_ONCE, clock)
        self._steering = ThreadPoolExecutor(1, thread_name_prefix="page-steering")
        self._n_waiting = 0

    def add_to(self, app: web.Application) -> None:
        """Adds the routes to `app`, and what ends with it."""
        app.router.add_get("/steer", self._get)
        app.router.add_post("/steer", self._post)
        app.on_cleanup.append(self._close)

    async def _close(self, app: web.Application) -> None:
        if self._agent is not None:
            self._steering.submit(self._agent.end)
        self._steering.shutdown()

    async def _get(self, request: web.Request) -> web.Response:
        feed, _ = self._admitted(request)
        await asyncio.wrap_future(feed.look())
        state = feed.state(with_points=True)
        return _json({name: state[name] for name in TOLD if name in state})

    async def _post(self, request: web.Request) -> web.Response:
        if "Authorization" not in request.headers and "Origin" in request.headers:
            return await self._from_page(request)
        feed, agent = self._admitted(request)
        if request.content_type != "application/json":
            _refuse(web.HTTPUnsupportedMediaType, "expected `Content-Type: application/json`")
        try:
            words = request_of(await _body(request))
        except ValueError as error:
            _refuse(web.HTTPBadRequest, str(error))
        try:
            return _json(await self._done(words, feed, agent))
        except ConflictError as error:
            _refuse(web.HTTPConflict, str(error))
        except TimeoutError as error:
            _refuse(web.HTTPGatewayTimeout, str(error))
        except ValueError as error:  # the policy refuses
            _refuse(web.HTTPConflict, str(error))

    def _admitted(self, request: web.Request) -> tuple[SteeringFeed, SteeringAgent]:
        """Returns who answers a program, if it may ask."""
        if not self._token:
            _refuse(
                web.HTTPForbidden, "no program may steer: `viewer.steering_token` names the file of a token"
            )
        if "Origin" in request.headers or "Sec-Fetch-Site" in request.headers:
            _refuse(web.HTTPForbidden, "no page of a browser may steer by this token")
        if not bears(request, self._token):
            headers = {"WWW-Authenticate": "Bearer"}
            wanted = "wanted `Authorization: Bearer` with the token of `viewer.steering_token`"
            _refuse(web.HTTPUnauthorized, wanted, headers)
        if not self._allowance.take():
            said = f"expected at most {REQUESTS_PER_S:g} requests a second"
            _refuse(web.HTTPTooManyRequests, said, {"Retry-After": "1"})
        if self._feed is None or self._agent is None:
            _refuse(web.HTTPNotFound, "this run has no policy: `policy.enabled` is false")
        return self._feed, self._agent

    async def _done(self, words: Request, feed: SteeringFeed, agent: SteeringAgent) -> dict[str, Any]:
        if not isinstance(words, End):
            await asyncio.wrap_future(feed.look())  # who is steered now decides, not a moment ago
        match words:
            case Suggest():
                return await self._apart(lambda: agent.suggest(words, feed.steered)) | {"unit": feed.unit}
            case Report():
                return await self._apart(lambda: agent.report(words, feed.steered))
            case End():
                return await self._apart(agent.end)
        deed, region = deed_of(words)
        await asyncio.wrap_future(feed.say(Words(deed), words.by or "a program", region))
        state = feed.state()
        return {name: state[name] for name in ("held", "stopped", "region") if name in state}

    async def _apart(self, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._n_waiting >= MOST_WAITING:
            _refuse(web.HTTPServiceUnavailable, "too many requests at once: ask again in a moment")
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._steering, answer)
        finally:
            self._n_waiting -= 1

    async def _from_page(self, request: web.Request) -> web.Response:
        """Passes on what a person says on the page: only our own page knows the token."""
        token = request.headers.get("X-Steering-Token", "")
        if self._feed is None or not self._page_token:
            raise web.HTTPForbidden(text="this page only shows: `viewer.controls` would let it steer")
        if not is_secret(token, self._page_token):
            raise web.HTTPForbidden(text="wanted the origin and the token of this page: load it again")
        address = asker(request, self._config)
        who = f"the page at {address}" if address else "the page"
        try:
            words = msgspec.json.decode(await request.read(), type=Words)
            await asyncio.wrap_future(self._feed.say(words, who))
        except (ValueError, TimeoutError) as error:
            raise web.HTTPConflict(text=str(error)) from error
        return web.Response()


async def _body(request: web.Request) -> bytes:
    """Return the body, which is not larger than it may be and comes in time."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while chunk := await request.content.readany():
                body += chunk
                if len(body) > MOST_BYTES:
                    _refuse_size()
    except TimeoutError:
        _refuse(web.HTTPRequestTimeout, f"expected the whole request within {BODY_S:g} s")
    return bytes(body)


def _refuse_size() -> NoReturn:
    said = plain_json({"error": f"expected at most {MOST_BYTES} bytes"}).decode()
    raise web.HTTPRequestEntityTooLarge(MOST_BYTES, text=said, content_type="application/json")


def _refuse(kind: type[web.HTTPException], said: str, headers: dict[str, str] | None = None) -> NoReturn:
    body = plain_json({"error": said}).decode()
    raise kind(text=body, content_type="application/json", headers=headers or {})


def _json(values: object) -> web.Response:
    return web.Response(body=plain_json(values), content_type="application/json")
