"""Programs that steer by HTTP: who may, what they are told, and whatever they send."""

import json
import random
import re

import pytest
from aiohttp import ClientSession

from launch.page.steering_agent import request_of
from launch.page.steering_routes import MOST_BYTES, Allowance
from stream.wire.sockets import Endpoint
from tests.helpers.launch.pages import outcome, viewer
from tests.helpers.launch.plans import AskingPlan, answering, until
from tests.helpers.stream.fake_door import FakeDoor
from tests.helpers.stream.policies import LIMITS, policy

TOKEN = "a-token-of-more-than-sixteen-letters"
BEARING = {"Authorization": f"Bearer {TOKEN}"}
REQUESTS = (
    {"do": "suggest", "n": 8, "measured": [[1.0, 2.0]], "failed": [], "after": 3, "take_over": False},
    {"do": "report", "measured": [[1.0, 2.5], [3, 4]], "failed": [[1.5, 1.5]]},
    {"do": "region", "region": [[0.0, 1.0], [0.0, 2.0]], "by": "tango"},
    {"do": "hold", "by": "spec"},
    {"do": "end"},
)


@pytest.fixture
def token(tmp_path):
    (tmp_path / "steering.key").write_text(TOKEN)
    return {"steering_token": tmp_path / "steering.key"}


@pytest.fixture
def steered(token):
    """A page beside a policy, and the policy."""
    steers = policy()
    with (
        FakeDoor() as door,
        answering(steers=steers) as address,
        viewer(door.address, policy=Endpoint(address=address), **token) as url,
    ):
        yield url, steers, address


def asked(url, body=None, headers=BEARING):
    """Status, answer and headers of a request; bytes go as they are, what else as JSON."""

    async def exchange():
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json"} if body is not None else {}
        method = "GET" if body is None else "POST"
        async with (
            ClientSession() as session,
            session.request(method, f"{url}/steer", data=data, headers=kind | headers) as answer,
        ):
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text, answer.headers

    return outcome(exchange())


def done(url, **words):
    status, answer, _ = asked(url, words)
    assert status == 200, answer
    return answer


def test_a_program_steers_a_scan_from_its_first_point_to_its_end(steered):
    url, steers, _ = steered
    first = done(url, do="suggest", n=9)
    assert (len(first["points"]), first["unit"], first["stop"], first["held"]) == (9, "um", False, False)
    reported = done(url, do="report", measured=first["points"][:6], failed=first["points"][6:7], after=0)
    assert reported == {"n_measured": 6, "n_failed": 1}
    second = done(url, do="suggest", n=9, measured=first["points"][7:], after=6)
    assert second["n_measured"] == 8 == steers.n_measured
    assert not [point for point in second["points"] if point in [*first["points"][:6], *first["points"][7:]]]
    _, stands, _ = asked(url)
    assert (stands["plan"], stands["n_measured"], stands["n_failed"]) == ("running", 8, 1)
    assert stands["points"] == second["points"]
    assert done(url, do="end") == {"n_measured": 8, "n_failed": 1}
    until(lambda: asked(url)[1]["plan"] == "ended")
    assert done(url, do="suggest", n=3)["n_measured"] == 0


def test_a_request_that_is_repeated_because_its_answer_was_lost_counts_nothing_twice(steered):
    url, _, _ = steered
    points = done(url, do="suggest", n=4)["points"]
    done(url, do="suggest", n=4, measured=points, after=0)
    status, answer, _ = asked(url, {"do": "suggest", "n": 4, "measured": points, "after": 0})
    assert (status, answer) == (
        409,
        {"error": "4 points have been measured before these, not 0: nothing was noted"},
    )
    assert done(url, do="report")["n_measured"] == 4


def test_a_point_that_cannot_be_is_refused_and_spoils_nothing(steered):
    url, steers, _ = steered
    done(url, do="suggest", n=4, measured=[[1.0, 2.0]])
    status, answer, _ = asked(url, {"do": "suggest", "n": 4, "measured": [[1e11, 2.0]]})
    assert (status, "object pixels away: is um its unit?" in answer["error"]) == (409, True)
    assert done(url, do="suggest", n=4, measured=[[3.0, 2.0]], after=1)["n_measured"] == 2
    assert steers.measured.tolist() == [[1.0, 2.0], [3.0, 2.0]]


def test_words_of_a_program_reach_whoever_is_steered(steered):
    url, _, _ = steered
    (low, high), _ = LIMITS
    done(url, do="suggest", n=4)
    assert done(url, do="hold", by="spec")["held"]
    held = done(url, do="suggest", n=4)
    assert (held["held"], held["points"]) == (True, [])
    done(url, do="resume")
    half = [[low, (low + high) / 2], [low, high]]
    assert done(url, do="region", region=half)["region"] == half
    assert all(y <= half[0][1] for y, _ in done(url, do="suggest", n=20)["points"])
    assert done(url, do="clear")["region"] is None
    status, answer, _ = asked(url, {"do": "region", "region": [[1e9, 2e9], [0, 1]]})
    assert (status, "has no place to measure" in answer["error"]) == (409, True)
    assert done(url, do="stop", by="spec")["stopped"]
    last = done(url, do="suggest", n=4)
    assert (last["stop"], last["why"], last["points"]) == (True, "stopped by spec", [])
    assert asked(url)[1]["said"][0] == "held by spec"


def test_another_plan_is_not_pushed_aside_unless_that_is_said(steered):
    url, _, address = steered
    with AskingPlan(address) as plan:
        until(lambda: plan.points is not None)
        status, answer, _ = asked(url, {"do": "suggest", "n": 4})
        assert (status, '"take_over": true' in answer["error"]) == (409, True)
        assert done(url, do="hold")["held"], "a word is for whoever is steered"
        until(lambda: plan.client.heard.held)
    assert len(done(url, do="suggest", n=4, take_over=True)["points"]) == 4


def test_nobody_steers_without_the_token_and_no_browser_does_with_it(steered):
    url, steers, _ = steered
    hold = {"do": "hold"}
    for headers, status in (
        ({"Authorization": ""}, 401),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        (BEARING | {"Origin": url}, 403),
        (BEARING | {"Sec-Fetch-Site": "same-origin"}, 403),
        (BEARING | {"Origin": "https://elsewhere.example"}, 403),
        (BEARING | {"Host": "rebound.example"}, 403),
        (BEARING | {"Content-Type": "text/plain"}, 415),
        ({}, 401),
        ({"Origin": url}, 403),
    ):
        assert asked(url, hold, headers)[0] == status, headers
    assert asked(url, headers={})[0] == 401
    assert steers.n_measured == 0


def test_without_a_token_no_program_steers_not_even_on_this_computer():
    with FakeDoor() as door, viewer(door.address) as url:
        status, answer, _ = asked(url, {"do": "hold"})
        assert (status, "`viewer.steering_token`" in answer["error"]) == (403, True)


def test_a_run_without_a_policy_says_so(token):
    with FakeDoor() as door, viewer(door.address, **token) as url:
        assert asked(url)[0] == asked(url, {"do": "hold"})[0] == 404


def test_a_policy_that_is_silent_is_told_of(token, monkeypatch):
    monkeypatch.setattr("launch.page.steering_feed.TIMEOUT_S", 0.1)
    nobody = Endpoint(address="tcp://127.0.0.1:9")
    with FakeDoor() as door, viewer(door.address, policy=nobody, **token) as url:
        status, answer, _ = asked(url, {"do": "hold"})
        assert (status, "nobody has answered at tcp://127.0.0.1:9" in answer["error"]) == (504, True)
        assert "does not answer" in asked(url)[1]["trouble"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "expected a JSON object"),
        (b"[]", "Expected `object`, got `array`"),
        (b'{"do": "explode"}', "Invalid value 'explode' - at `$.do`"),
        (b'{"do": "suggest", "n": 0}', "Expected `int` >= 1 - at `$.n`"),
        (b'{"do": "suggest", "points": 3}', "unknown field `points`"),
        (b'{"do": "suggest", "measured": [[1, "a"]]}', "Expected `float`, got `str` - at `$.measured[0][1]`"),
        (b'{"do": "suggest", "measured": [[1e13, 0]]}', "$.measured[0][0]"),
        (b'{"do": "region"}', "required field `region`"),
        (b"[" * 100_000, "expected a JSON object"),
    ],
)
def test_a_wrong_request_is_told_what_was_expected_and_where(body, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        request_of(body)


def test_a_request_that_is_wrong_or_too_large_is_refused(steered):
    status, answer, _ = asked(steered[0], b'{"do": "explode"}')
    assert (status, "at `$.do`" in answer["error"]) == (400, True)
    status, answer, _ = asked(steered[0], b" " * (MOST_BYTES + 1))
    assert (status, answer) == (413, {"error": f"expected at most {MOST_BYTES} bytes"})


def test_more_requests_than_anybody_needs_are_refused_for_a_moment(steered):
    url, _, _ = steered
    statuses = {asked(url, {"do": "report"})[0] for _ in range(3)}
    assert statuses == {200}
    now = [0.0]
    allowance = Allowance(2.0, 3.0, lambda: now[0])
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    now[0] += 0.5
    assert [allowance.take() for _ in range(2)] == [True, False]
    now[0] += 100.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]


def test_whatever_is_sent_is_read_or_refused_and_nothing_else():
    rng = random.Random(7)
    texts = [json.dumps(request).encode() for request in REQUESTS]
    refused = 0
    for _ in range(10_000):
        body = bytearray(rng.choice(texts))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(body))
            match rng.randrange(4):
                case 0:
                    body[at] = rng.randrange(256)
                case 1:
                    del body[at : at + rng.randint(1, 8)]
                case 2:
                    body[at:at] = rng.choice((b"[", b"{", b'"', b"1e400", b"-", b"null", b"\xff", b"NaN,"))
                case 3:
                    body += rng.choice(texts)[:at]
            body = body or bytearray(b"{")
        try:
            request_of(bytes(body))
        except ValueError as error:
            refused += 1
            assert "expected a JSON object" in str(error)
    assert refused > 5000
