"""Who may steer through the page's server, without a browser."""

from aiohttp import ClientSession

from launch.page.server import LiveFeed, ViewerConfig
from stream.wire.sockets import Endpoint
from tests.helpers.launch.pages import outcome, viewer
from tests.helpers.launch.plans import AskingPlan, answering, until
from tests.helpers.stream.fake_door import FakeDoor


async def posted(url, headers, body='{"deed": "hold"}'):
    async with ClientSession() as session, session.post(f"{url}/steer", headers=headers, data=body) as answer:
        return answer.status


async def token_of(url):
    async with ClientSession() as session, session.ws_connect(f"{url}/live") as socket:
        while True:
            await socket.send_str("next")
            message = await socket.receive(timeout=5)
            if isinstance(message.data, str) and '"token"' in message.data:
                return message.json()["steering"]["token"]


def test_only_our_own_page_can_steer():
    with (
        FakeDoor() as door,
        answering() as address,
        AskingPlan(address) as plan,
        viewer(door.address, policy=Endpoint(address=address)) as url,
    ):
        token = outcome(token_of(url))
        own = {"Origin": url, "X-Steering-Token": token}
        for headers in (
            {},
            {"Origin": url},
            {"X-Steering-Token": token},
            own | {"X-Steering-Token": token[:-1] + "?"},
            own | {"Origin": "http://elsewhere.example"},
            own | {"Host": "rebound.example:80"},
        ):
            assert outcome(posted(url, headers)) == 403
        assert plan.client.heard.number == 0
        assert outcome(posted(url, own, '{"deed": "explode"}')) == 409
        assert outcome(posted(url, own, "x" * 5000)) == 413
        until(lambda: outcome(posted(url, own)) == 200)
        until(lambda: plan.client.heard.held)


def test_a_page_others_can_see_steers_only_when_somebody_said_so():
    there, nobody = {"host": "0.0.0.0", "insecure": True}, Endpoint(address="tcp://127.0.0.1:9")
    assert ViewerConfig().may_steer
    for shown in (there, {"hosts": ["proxy.example"]}):
        assert not ViewerConfig(**shown).may_steer
        assert ViewerConfig(**shown, controls=True).may_steer
    assert not LiveFeed(nobody, may_steer=True).token, "there is nothing to steer"
    with FakeDoor() as door, viewer(door.address, policy=nobody, **there) as url:
        assert outcome(token_of(url)) == ""
        assert outcome(posted(url, {"Origin": url, "X-Steering-Token": ""})) == 403


def test_nothing_is_steered_by_a_link():
    async def fetched(url):
        async with ClientSession() as session, session.get(f"{url}/steer") as answer:
            return answer.status

    with FakeDoor() as door, viewer(door.address) as url:
        assert outcome(fetched(url)) == 403
