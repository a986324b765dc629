"""Client requests forwarded to fake hubs: order of the mirrors, tokens, and answers."""

import asyncio

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.errors import AccessDenied, EntryNotFound, NotYet, P2PModelError, RepoNotFound, Unavailable, WrongBytes
from p2pmodel.origin.origin import Origin
from p2pmodel.origin.relay.request import HubPath, RelayRequest
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.virtual_clock import VirtualClock
from tests.unit.origin.conftest import OpenOrigin

WEIGHTS = "w/model.safetensors"
FILE = f"/datasets/org/model/resolve/main/{WEIGHTS}"
CLIENTS = "hf_of_the_client"
OWN = "hf_of_the_node"


def asked(
    path: str = FILE, method: str = "GET", *, token: str | None = None, own: bool = True, **headers: str
) -> RelayRequest:
    bare, _, query = path.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return RelayRequest(method, HubPath(bare), f"?{query}" if query else "", named, token=token, own=own, within=2.0)


async def take(origin: Origin, question: RelayRequest, into: bytearray) -> None:
    async with origin.relay(question) as relayed:
        async for block in relayed.body():
            into += block


async def answer(origin: Origin, question: RelayRequest) -> tuple[int, dict[str, str], bytes]:
    async with origin.relay(question) as relayed:
        return relayed.status, relayed.headers, b"".join([block async for block in relayed.body()])


def mirror(name: str, hub: FakeHub, *, own: str | None = None, takes: bool = False) -> MirrorSettings:
    values = {"name": name, "endpoint": hub.url, "token": own, "client_tokens": takes}
    return MirrorSettings.model_validate(values)


def dataset(snapshot: HubSnapshot, *faults: str, **options: object) -> FakeHub:
    return FakeHub(snapshot, faults=faults, kind="datasets", **options)  # type: ignore[arg-type]


async def test_the_preferred_mirror_answers_alone(snapshot: HubSnapshot, open_origin: OpenOrigin) -> None:
    async with dataset(snapshot) as a, dataset(snapshot) as b, open_origin(a, b) as origin:
        status, headers, body = await answer(origin, asked())
        assert (status, body) == (200, snapshot.contents[WEIGHTS])
        assert headers["ETag"] == headers["X-Linked-Etag"] == f'"{snapshot.file(WEIGHTS).etag}"'
        assert headers["X-Repo-Commit"] == snapshot.commit
        status, headers, body = await answer(origin, asked(Range="bytes=5-9"))
        assert (status, body) == (206, snapshot.contents[WEIGHTS][5:10])
        assert headers["Content-Range"] == f"bytes 5-9/{len(snapshot.contents[WEIGHTS])}"
        assert not b.requests
        assert origin.bytes_by_mirror["a"] == len(snapshot.contents[WEIGHTS]) + 5


@pytest.mark.parametrize("fault", ["503:60", "429:60", "html", "gzip", "stall", "other-commit", "status:404", "loop"])
async def test_another_mirror_answers_for_one_that_does_not(
    snapshot: HubSnapshot, open_origin: OpenOrigin, fault: str
) -> None:
    path = FILE.replace("main", snapshot.commit)
    async with dataset(snapshot, fault) as a, dataset(snapshot) as b, open_origin(a, b) as origin:
        assert (await answer(origin, asked(path)))[2] == snapshot.contents[WEIGHTS]
        assert [a.requests[0].path, b.requests[0].path] == [path, path]


@pytest.mark.parametrize("fault", ["drop:700000*1", "stall:300000*1", "drop:1*1"])
@pytest.mark.parametrize("wanted", ["", "bytes=100-1400000"])
async def test_a_body_that_breaks_off_is_gone_on_with_elsewhere(
    snapshot: HubSnapshot, open_origin: OpenOrigin, fault: str, wanted: str
) -> None:
    whole = snapshot.contents[WEIGHTS]
    expected = whole[100:1400001] if wanted else whole
    headers = {"Range": wanted} if wanted else {}
    async with dataset(snapshot, fault) as a, dataset(snapshot) as b, open_origin(a, b) as origin:
        assert (await answer(origin, asked(**headers)))[2] == expected
        assert a.sent + b.sent == len(expected), "no byte came twice"
        assert (await answer(origin, asked(**headers)))[2] == expected


async def test_the_rest_of_another_file_is_no_rest(snapshot: HubSnapshot, open_origin: OpenOrigin) -> None:
    other = snapshot_of({**snapshot.contents, WEIGHTS: bytes(len(snapshot.contents[WEIGHTS]))})
    async with dataset(snapshot, "drop:700000*1", "status:404") as a, dataset(other) as b, open_origin(a, b) as origin:
        with pytest.raises(P2PModelError):
            await answer(origin, asked())


async def test_the_end_of_a_wrong_file_never_comes(
    snapshot: HubSnapshot, open_origin: OpenOrigin, notes: list[str]
) -> None:
    async with dataset(snapshot, "flip*1") as a, open_origin(a) as origin:
        got = bytearray()
        with pytest.raises(WrongBytes, match="mirror a"):
            await take(origin, asked(), got)
        assert 0 < len(got) < len(snapshot.contents[WEIGHTS])
        assert "wrong bytes" in notes[-1]
        assert origin.statuses()[0].state == "quarantined"
        status, _, body = await answer(origin, asked(Range=f"bytes={len(got)}-"))
        assert (status, body) == (200, snapshot.contents[WEIGHTS]), "the rest would complete what is wrong"


async def test_a_redirect_to_storage_is_followed_for_the_client(snapshot: HubSnapshot, open_origin: OpenOrigin) -> None:
    size = len(snapshot.contents[WEIGHTS])
    async with dataset(snapshot) as storage:
        hub = dataset(snapshot, "redirect", token=OWN, xet=True, redirect_to=storage.url)
        async with hub, open_origin(mirror("a", hub, own=OWN)) as origin:
            async with origin.relay(asked(method="HEAD")) as relayed:
                assert (relayed.status, relayed.length) == (200, size)
                assert relayed.headers["ETag"] == f'"{snapshot.file(WEIGHTS).etag}"'
                assert not {"Location", "X-Xet-Hash", "Link"} & set(relayed.headers)
            assert not storage.requests, "the hub's headers were enough"
            status, headers, body = await answer(origin, asked())
            assert (status, body) == (200, snapshot.contents[WEIGHTS])
            assert headers["X-Repo-Commit"] == snapshot.commit
            assert [r.token for r in hub.requests] == [OWN, OWN]
            assert [r.token for r in storage.requests] == [""]


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (FILE.replace(WEIGHTS, "none"), EntryNotFound),
        ("/datasets/org/none/resolve/main/x", RepoNotFound),
        ("/api/datasets/org/none", RepoNotFound),
    ],
)
async def test_a_refusal_of_all_is_the_hubs(
    snapshot: HubSnapshot, open_origin: OpenOrigin, path: str, error: type[P2PModelError]
) -> None:
    async with dataset(snapshot) as a, dataset(snapshot) as b, open_origin(a, b) as origin:
        with pytest.raises(error, match="a: HTTP 404"):
            await answer(origin, asked(path))
        assert len(a.requests) == len(b.requests) == 1


async def test_without_an_answer_the_error_names_every_mirror(snapshot: HubSnapshot, open_origin: OpenOrigin) -> None:
    async with dataset(snapshot, "retry:60") as a, open_origin(a, "http://127.0.0.1:9") as origin:
        with pytest.raises(NotYet, match="connection refused"):
            await answer(origin, asked())
    async with open_origin() as origin:
        with pytest.raises(Unavailable, match="no mirror is configured"):
            await answer(origin, asked())


async def test_tokens_go_only_to_their_mirrors(snapshot: HubSnapshot, open_origin: OpenOrigin) -> None:
    """Own tokens first; the client's to the one mirror that takes such, and only when it is needed."""
    async with dataset(snapshot, token=OWN) as a, dataset(snapshot, token=CLIENTS) as b:
        async with open_origin(mirror("a", a), mirror("b", b, takes=True)) as origin:
            async with origin.relay(asked(token=CLIENTS)) as relayed:
                assert relayed.by_client
            assert [r.token for r in a.requests] == [""]
            assert [r.token for r in b.requests] == ["", CLIENTS]
            with pytest.raises(AccessDenied):
                await answer(origin, asked(token="another"))
        a.requests.clear()
        b.requests.clear()
        async with open_origin(mirror("a", a, own=OWN), mirror("b", b, takes=True)) as origin:
            async with origin.relay(asked(token=CLIENTS)) as relayed:
                assert not relayed.by_client
            async with origin.relay(asked("/api/whoami-v2", token=CLIENTS, own=False)) as relayed:
                assert relayed.status == 200
            assert [r.token for r in a.requests] == [OWN]
            assert [r.token for r in b.requests] == [CLIENTS]


async def test_a_mirror_that_answers_again_is_first_again(
    snapshot: HubSnapshot, open_origin: OpenOrigin, clock: VirtualClock
) -> None:
    async with dataset(snapshot, "status:503*3") as a, dataset(snapshot) as b, open_origin(a, b) as origin:
        for _ in range(5):
            await answer(origin, asked())
            await clock.sleep(5.0)
        assert len(a.requests) == 3, "then others go first"
        await clock.sleep(60.0)
        await answer(origin, asked())
        assert (len(a.requests), len(b.requests)) == (4, 5)
        assert origin.statuses()[0].state == "healthy"


async def test_a_listing_is_gone_on_with_at_the_same_place(snapshot: HubSnapshot, open_origin: OpenOrigin) -> None:
    path = "/api/datasets/org/model/tree/main?recursive=true"
    for prefix in ("", "/hf"):
        hub = dataset(snapshot, page=2, prefix=prefix)
        async with hub, open_origin(hub) as origin, origin.relay(asked(path)) as relayed:
            assert relayed.following == "/api/datasets/org/model/tree/main?recursive=true&cursor=2"


@pytest.mark.parametrize(
    "header",
    [
        b"ETag: \xff\xfe",
        b"Content-Disposition: \xed\xa0\x80",
        b'Link: <http://[::1/api/x>; rel="next"',
        b'Link: </elsewhere>; rel="next"',
        b"Content-Length: 99999999999999999999999",
        b"Content-Encoding: br",
    ],
)
async def test_a_response_with_a_malformed_header_is_taken_from_the_next_mirror(
    snapshot: HubSnapshot, open_origin: OpenOrigin, header: bytes
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + header + b"\r\n\r\nbody")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, dataset(snapshot) as good:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with open_origin(url, good) as origin:
            status, _, body = await answer(origin, asked())
    assert (status, body) == (200, snapshot.contents[WEIGHTS])


async def test_a_redirect_into_a_private_network_is_not_followed(
    snapshot: HubSnapshot, open_origin: OpenOrigin
) -> None:
    hub = dataset(snapshot, "redirect", redirect_to="http://169.254.169.254")
    async with hub, dataset(snapshot) as good, open_origin(hub, good) as origin:
        assert (await answer(origin, asked()))[2] == snapshot.contents[WEIGHTS]


def test_only_the_official_hub_takes_client_tokens_by_default() -> None:
    assert MirrorSettings(name="hub", endpoint="https://huggingface.co").takes_client_tokens
    assert not MirrorSettings(name="hub", endpoint="https://huggingface.co", client_tokens=False).takes_client_tokens
    assert not MirrorSettings(name="other", endpoint="https://hf-mirror.com").takes_client_tokens
    assert MirrorSettings(name="ours", endpoint="https://hub.example", client_tokens=True).takes_client_tokens
    assert CLIENTS not in repr(asked(token=CLIENTS))
