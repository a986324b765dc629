"""The client behind reverse proxies: what trusted proxies say, and nothing that a client may have written."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, CIMultiDictProxy

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.http import limits
from p2pmodel.http.access_log import AccessLog
from p2pmodel.http.admission.access import WRONG_TOKEN, RequestGuard
from p2pmodel.http.admission.forwarded import PUBLIC_URL, TrustedProxies, public_base, public_url
from p2pmodel.http.admission.protection import OUTER_MIDDLEWARES, WRONG_AT_ONCE
from p2pmodel.http.server import serving
from tests.support.eventually import PATIENCE

PROXIES = TrustedProxies.parse(["10.0.0.0/24", "fd00::/64"])


def client(peer: str, **headers: str) -> str | None:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return PROXIES.client(peer, CIMultiDictProxy(CIMultiDict(named)))


@pytest.mark.parametrize(
    ("hops", "found"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7", "192.0.2.7"),
        ("203.0.113.9, 192.0.2.7, 10.0.0.8", "192.0.2.7"),
        ("192.0.2.7:4711", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[2001:db8::7]:80, fd00::3", "2001:db8::7"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("192.0.2.7, unknown", "10.0.0.1"),
        ("192.0.2.7, unknown, 10.0.0.5", "10.0.0.5"),
        ("192.0.2.7, 127.0.0.1", "127.0.0.1"),
        ("", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_hop_that_is_no_trusted_proxy(hops: str, found: str) -> None:
    assert client("10.0.0.1", X_Forwarded_For=hops) == found


@pytest.mark.parametrize(
    ("elements", "found"),
    [
        ("for=192.0.2.7", "192.0.2.7"),
        ('for=203.0.113.9, proto=http;For="[2001:db8::7]:4711";by=10.0.0.1', "2001:db8::7"),
        ("for=192.0.2.7;proto=https, for=10.0.0.8", "192.0.2.7"),
        ("for=_hidden", "10.0.0.1"),
        ("proto=https", "10.0.0.1"),
    ],
)
def test_rfc_7239_says_the_same(elements: str, found: str) -> None:
    assert client("10.0.0.1", Forwarded=elements) == found


def test_only_trusted_proxies_say_it_and_both_headers_must_agree() -> None:
    assert client("10.0.1.1", X_Forwarded_For="192.0.2.7") is None
    assert client("10.0.0.1") is None
    assert client("10.0.0.1", X_Forwarded_For="192.0.2.7", Forwarded="for=192.0.2.7") == "192.0.2.7"
    assert client("10.0.0.1", X_Forwarded_For="192.0.2.7", Forwarded="for=203.0.113.9") is None


@asynccontextmanager
async def server(log: Path | None = None, **http: object) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that answers with the client's address; `/slow` waits for the event, `/wrong` found a wrong token."""
    settings = HttpSettings(**{"trusted_proxies": ("127.0.0.1",)} | http)  # type: ignore[arg-type]
    go_on = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await go_on.wait()
        request[WRONG_TOKEN] = request.path == "/wrong"
        return web.Response(text=request.remote)

    access_log = AccessLog(log) if log else None
    app = web.Application(middlewares=[*([access_log.middleware()] if access_log else []), *limits.rate(settings)])
    app[OUTER_MIDDLEWARES] = 1 if access_log else 0
    app.router.add_get("/{name}", answer)
    guard = RequestGuard.of(settings, secured=False, own_user=True)
    bounds = limits.connections(settings)
    async with serving(app, "127.0.0.1", 0, guard=guard, limits=bounds, grace=0.1) as base:
        yield base, go_on
    if access_log:
        access_log.close()


async def get(base: str, path: str, client: str, **headers: str) -> tuple[int, str]:
    sent = {"X-Forwarded-For": client} | headers
    async with ClientSession() as session, session.get(f"{base}/{path}", headers=sent) as response:
        return response.status, await response.text()


async def test_a_handler_and_the_access_log_see_the_client(tmp_path: Path) -> None:
    async with server(tmp_path / "log") as (base, _):
        assert await get(base, "a", "192.0.2.7") == (200, "192.0.2.7")
    assert json.loads((tmp_path / "log").read_text())["client"] == "192.0.2.7"
    async with server(trusted_proxies=("10.0.0.1",)) as (base, _):
        assert await get(base, "a", "192.0.2.7") == (200, "127.0.0.1")


async def test_rates_and_wrong_tokens_are_counted_for_each_client() -> None:
    async with server(max_requests_per_second=1) as (base, _):
        while (await get(base, "a", "192.0.2.7"))[0] == 200:
            pass
        assert (await get(base, "a", "192.0.2.8"))[0] == 200
    async with server() as (base, _):
        for _ in range(WRONG_AT_ONCE):
            await get(base, "wrong", "192.0.2.7", Authorization="Bearer x")
        assert (await get(base, "a", "192.0.2.7", Authorization="Bearer x"))[0] == 429
        assert (await get(base, "a", "192.0.2.8", Authorization="Bearer x"))[0] == 200


async def test_requests_of_one_client_at_a_time_are_bounded_as_its_connections_would_be() -> None:
    async with server(max_connections_per_address=2) as (base, go_on), asyncio.TaskGroup() as group:
        slow = [group.create_task(get(base, "slow", "192.0.2.7")) for _ in range(2)]
        async with asyncio.timeout(PATIENCE):
            while (await get(base, "a", "192.0.2.7"))[0] != 429:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await get(base, "a", "192.0.2.8"))[0] == 200, "another client of the same proxy"
        go_on.set()
        assert [(await each)[0] for each in slow] == [200, 200]
        assert (await get(base, "a", "192.0.2.7"))[0] == 200, "they have ended"


class Transport:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def get_extra_info(self, name: str) -> object:
        return (self._peer, 1) if name == "peername" else None


def asked(
    headers: dict[str, str], *, peer: str = "127.0.0.1", configured: str = "", path: str = "/a%20b?c=d"
) -> web.Request:
    app = web.Application()
    if configured:
        app[PUBLIC_URL] = configured
    headers = {"Host": "inside:8090"} | headers
    request = make_mocked_request("GET", path, headers, app=app, transport=Transport(peer))
    request._match_info = web.UrlMappingMatchInfo({}, None)  # type: ignore[assignment, arg-type]
    request._match_info.add_app(app)
    return request


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({}, "http://inside:8090"),
        ({"X-Forwarded-Proto": "https"}, "https://inside:8090"),
        ({"X-Forwarded-Prefix": "/hf"}, "http://inside:8090/hf"),
        ({"X-Forwarded-Prefix": "/hf/"}, "http://inside:8090/hf"),
        ({"X-Forwarded-Prefix": "/"}, "http://inside:8090"),
        (
            {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "hub.corp, inside", "X-Forwarded-Prefix": "/a/b"},
            "https://hub.corp/a/b",
        ),
        ({"X-Forwarded-Host": "[fd00::1]:8443"}, "http://[fd00::1]:8443"),
        ({"X-Forwarded-Proto": "javascript"}, "http://inside:8090"),
        ({"X-Forwarded-Host": "evil>x"}, "http://inside:8090"),
        ({"X-Forwarded-Host": "me:secret@evil"}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": '/x>; rel="next"'}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": "//evil"}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": "/../x"}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": "no-slash"}, "http://inside:8090"),
    ],
)
def test_headers_of_a_proxy_on_this_machine_count(headers: dict[str, str], base: str):
    assert public_base(asked(headers)) == base
    assert str(public_url(asked(headers))) == f"{base}/a%20b?c=d"
    assert public_base(asked(headers, peer="192.0.2.7")) == "http://inside:8090", "anyone else may forge them"


def test_the_setting_counts_before_everything():
    headers = {"X-Forwarded-Prefix": "/other", "X-Forwarded-Proto": "https"}
    assert str(public_url(asked(headers, configured="https://hub.corp/hf"))) == "https://hub.corp/hf/a%20b?c=d"
