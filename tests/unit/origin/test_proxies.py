"""Requests to mirrors through a proxy: which ones, with which credentials, and what an error says."""

import pytest
from aiohttp import web

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.coordinator.client.torrent_download import download_torrent
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.egress import PUBLIC
from p2pmodel.errors import BadTorrent, InvalidInput, P2PModelError, Unavailable
from p2pmodel.http.server import serving
from p2pmodel.node.hub.sync_log_check import check_log
from p2pmodel.origin.mirrors.mirror import DiscoveredMirror
from p2pmodel.service.watch import Webhook
from tests.support.certificates import authority
from tests.support.fake_hub import FakeHub
from tests.support.forward_proxy import ForwardProxy
from tests.support.memory_sink import MemorySink

MAIN = Reference.parse("org/model")


async def pull(origin, snapshot) -> None:
    await origin.pull(snapshot.manifest, snapshot.file("config.json"), MemorySink(snapshot.file("config.json")))


async def test_listings_and_files_go_through_the_proxy_with_its_credentials(snapshot, open_origin):
    async with FakeHub(snapshot) as hub, ForwardProxy() as proxy:
        given = f"me:secret@{proxy.name}"
        async with open_origin(hub, http_proxy=given) as origin:
            await origin.manifest(MAIN)
            await pull(origin, snapshot)
    paths = [asked.removeprefix(f"GET {hub.url}") for asked in proxy.asked]
    assert [path.split("/")[1] for path in paths] == ["api", "api", "org"]
    assert set(proxy.credentials) == {"Basic bWU6c2VjcmV0"}
    assert "Proxy-Authorization" not in str(hub.requests)


async def test_https_goes_through_a_tunnel(snapshot, open_origin, tmp_path):
    certificate, context = authority(tmp_path)
    async with FakeHub(snapshot, tls=context) as hub, ForwardProxy() as proxy:
        mirror = MirrorSettings(name="a", endpoint=hub.url, ca_file=certificate)
        async with open_origin(mirror, https_proxy=f"http://me:secret@{proxy.name}") as origin:
            await pull(origin, snapshot)
    assert set(proxy.asked) == {f"CONNECT {hub.url.removeprefix('https://')}"}
    assert set(proxy.credentials) == {"Basic bWU6c2VjcmV0"}


async def test_hosts_of_no_proxy_are_asked_directly(snapshot, open_origin):
    async with FakeHub(snapshot) as hub, ForwardProxy() as proxy:
        for listed in ("127.0.0.0/8", hub.url.removeprefix("http://"), "*"):
            async with open_origin(hub, http_proxy=proxy.name, no_proxy=listed) as origin:
                await origin.manifest(MAIN)
                await pull(origin, snapshot)
    assert proxy.asked == []


async def test_a_source_inside_the_cluster_is_asked_directly(snapshot, open_origin):
    async with FakeHub(snapshot) as hub, ForwardProxy() as proxy:
        near = DiscoveredMirror(name="a", endpoint=hub.url, egress=PUBLIC.around("127.0.0.1"), direct=True)
        async with open_origin(near, http_proxy=proxy.name) as origin:
            await pull(origin, snapshot)
    assert proxy.asked == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("503 No", "HTTP 503"),
        ("407 Who", "HTTP 407: it requires a user name and a password"),
        ("403 Forbidden", "requires a token"),
    ],
)
async def test_an_error_names_the_proxy(snapshot, open_origin, answer: str, said: str):
    async with (
        FakeHub(snapshot) as hub,
        ForwardProxy(answer=answer) as proxy,
        open_origin(hub, http_proxy=f"http://me:secret@{proxy.name}", patience=1) as origin,
    ):
        for failing in (origin.manifest(MAIN), pull(origin, snapshot)):
            with pytest.raises(P2PModelError, match=f"a: by proxy {proxy.name}: ") as caught:
                await failing
            assert "secret" not in str(caught.value)
        with pytest.raises(P2PModelError, match=said):
            await origin.manifest(MAIN)


async def test_an_error_names_the_proxy_that_opens_no_tunnel(snapshot, open_origin):
    async with (
        ForwardProxy(answer="403 Forbidden") as proxy,
        open_origin("https://hub.invalid", https_proxy=proxy.name, patience=1) as origin,
    ):
        with pytest.raises(Unavailable, match=rf"by proxy {proxy.name}: it refuses the connection \(HTTP 403\)"):
            await origin.manifest(MAIN)
    async with open_origin("https://hub.invalid", https_proxy=proxy.name, patience=1) as origin:
        with pytest.raises(Unavailable, match=f"by proxy {proxy.name}: connection refused"):
            await origin.manifest(MAIN)


async def test_a_socks_proxy_is_refused_where_a_mirror_needs_it(open_origin):
    with pytest.raises(InvalidInput, match=r"the proxy 127\.0\.0\.1:9 for http:// URLs is a SOCKS proxy"):
        async with open_origin("http://hub.invalid", http_proxy="socks5://127.0.0.1:9"):
            pass
    async with open_origin("http://hub.invalid", http_proxy="socks5://127.0.0.1:9", no_proxy="hub.invalid"):
        pass


async def test_torrents_logs_and_messages_go_through_the_proxy(open_origin):
    got: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        got.append(request.path)
        return web.Response(text="")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    notes: list[str] = []
    async with ForwardProxy() as proxy, serving(app, "127.0.0.1", 0, grace=0.1) as base:
        proxies = open_origin(base, http_proxy=proxy.name)._settings.proxies
        with pytest.raises(BadTorrent):
            await download_torrent(f"{base}/x.torrent", proxies=proxies)
        await check_log(f"{base}/sync-log", proxies=proxies)
        async with Webhook(f"{base}/hook", notes.append, proxies=proxies) as webhook:
            webhook.post({"n": 1})
    assert got == ["/x.torrent", "/sync-log", "/hook"]
    assert [asked.removeprefix(base) for asked in proxy.asked] == [
        f"GET {base}/x.torrent",
        f"GET {base}/sync-log",
        f"POST {base}/hook",
    ]
    assert notes == []
    async with Webhook(f"{base}/hook", notes.append, pause=0.01, proxies=proxies) as webhook:
        webhook.post({"n": 1})
    assert notes == [f"a message to the webhook at 127.0.0.1 failed: by proxy {proxy.name}: connection refused"]
    for failing in (download_torrent(f"{base}/x.torrent", proxies=proxies), check_log(f"{base}/l", proxies=proxies)):
        with pytest.raises(Unavailable, match=f"by proxy {proxy.name}: connection refused"):
            await failing
