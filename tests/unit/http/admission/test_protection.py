"""Protection of a server over real sockets: response headers, the throttle on wrong tokens, the user of the peer."""

import asyncio
import errno
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from aiohttp import web

from p2pmodel.errors import InvalidInput
from p2pmodel.http.admission import peer_identity
from p2pmodel.http.admission.access import RequestGuard, check_bearer
from p2pmodel.http.admission.protection import SECONDS_EACH, WRONG_AT_ONCE, TokenThrottle
from p2pmodel.http.error_responses import error_middleware, error_response
from p2pmodel.http.server import serving, serving_unix
from tests.support.eventually import PATIENCE

TOKEN = "open-sesame-open-sesame"
ANOTHER = 65534
as_another_user = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can run a process of another user"
)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def app(content_type: str = "text/plain") -> web.Application:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(body=b"<script>1</script>", content_type=content_type)

    async def secret(request: web.Request) -> web.Response:
        check_bearer(request, TOKEN)
        return web.Response()

    async def full(_request: web.Request) -> web.Response:
        raise OSError(errno.ENOSPC, "No space left on device", "/srv/secret/place")

    async def broken(_request: web.Request) -> web.Response:
        raise KeyError("/srv/secret/place")

    made = web.Application(middlewares=[error_middleware(error_response)])
    made.router.add_get("/", hello)
    made.router.add_get("/secret", secret)
    made.router.add_get("/full", full)
    made.router.add_get("/broken", broken)
    return made


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(
    ("content_type", "disposition"),
    [
        *((kind, "attachment") for kind in ("text/html", "image/svg+xml", "application/xml", "application/pdf")),
        *((kind, None) for kind in ("application/json", "application/octet-stream", "text/plain")),
    ],
)
async def test_no_response_is_a_page_to_a_browser(
    http: aiohttp.ClientSession, content_type: str, disposition: str | None
) -> None:
    async with serving(app(content_type), "127.0.0.1", 0, grace=0.1) as url, http.get(url) as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Security-Policy"].startswith("sandbox;")
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert answer.headers.get("Content-Disposition") == disposition


def test_the_brake_admits_a_few_wrong_tokens_and_then_some() -> None:
    clock = Clock()
    throttle = TokenThrottle(clock)
    for _ in range(WRONG_AT_ONCE):
        assert throttle.delay("a") == 0.0
        throttle.wrong("a")
    assert throttle.delay("a") == pytest.approx(SECONDS_EACH)
    assert throttle.delay("b") == 0.0
    clock.now += SECONDS_EACH
    assert throttle.delay("a") == 0.0
    throttle.wrong("a")
    assert throttle.delay("a") > 0.0
    clock.now += 1e6
    assert throttle.delay("a") == 0.0


async def test_an_address_with_many_wrong_tokens_waits(http: aiohttp.ClientSession) -> None:
    async with serving(app(), "127.0.0.1", 0, grace=0.1) as url:

        async def status(token: str | None) -> int:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with http.get(f"{url}/secret", headers=headers) as answer:
                assert answer.status != 429 or int(answer.headers["Retry-After"]) > 0
                return answer.status

        assert [await status("wrong") for _ in range(WRONG_AT_ONCE)] == [401] * WRONG_AT_ONCE
        statuses = [await status("wrong") for _ in range(WRONG_AT_ONCE)]
        assert 429 in statuses
        assert await status(None) == 401, "a request without a token is no guess"


async def test_of_many_guesses_the_right_one_is_not_found(http: aiohttp.ClientSession) -> None:
    async with serving(app(), "127.0.0.1", 0, grace=0.1) as url:
        guesses = ["wrong"] * 4 * WRONG_AT_ONCE + [TOKEN]
        found = []
        for guess in guesses:
            async with http.get(f"{url}/secret", headers={"Authorization": f"Bearer {guess}"}) as answer:
                found.append(answer.status)
        assert found[-1] == 429


@pytest.mark.parametrize(("path", "status"), [("/full", 507), ("/broken", 500)])
async def test_a_failure_names_no_path_over_tcp_and_the_log_has_it_once(
    http: aiohttp.ClientSession, tmp_path: Path, path: str, status: int
) -> None:
    notes: list[str] = []
    async with serving(app(), "127.0.0.1", 0, grace=0.1, note=notes.append) as url:
        for _ in range(3):
            async with http.get(url + path) as answer:
                assert (answer.status, "place" in await answer.text()) == (status, False)
    assert len(notes) == 1
    assert "/srv/secret/place" in notes[0]
    own = aiohttp.UnixConnector(str(tmp_path / "d.sock"))
    async with (
        serving_unix(app(), tmp_path / "d.sock", grace=0.1),
        aiohttp.ClientSession(connector=own) as session,
        session.get(f"http://localhost{path}") as answer,
    ):
        assert "/srv/secret/place" in await answer.text()


def test_the_kernel_and_proc_name_the_owner_of_a_socket_until_it_is_closed() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with socket.create_server((host, 0), family=family) as listener:
            client = socket.create_connection(listener.getsockname()[:2])
            accepted, _ = listener.accept()
            with accepted:
                pair = accepted.getpeername()[:2], accepted.getsockname()[:2]
                for search in (peer_identity.tcp_owner, peer_identity._search):
                    assert search(*pair) == os.geteuid()
                client.shutdown(socket.SHUT_WR)
                assert peer_identity.tcp_owner(*pair) == os.geteuid()
                client.close()
                for search in (peer_identity.tcp_owner, peer_identity._search):
                    assert search(*pair) is None, "the kernel says root of a closed socket"


def ask(url: str, *options: str | Path) -> str:
    """The status and body that another user receives."""
    as_another = ["setpriv", f"--reuid={ANOTHER}", f"--regid={ANOTHER}", "--clear-groups"]
    command = [*as_another, "curl", "-s", "-w", "%{http_code}", "-m", str(PATIENCE), *map(str, options), url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@as_another_user
@pytest.mark.needs("curl")
async def test_another_user_is_refused_over_loopback(http: aiohttp.ClientSession) -> None:
    async with serving(app(), "127.0.0.1", 0, guard=RequestGuard(own_user=True), grace=0.1) as url:
        async with http.get(url) as answer:
            assert answer.status == 200
        refused = await asyncio.to_thread(ask, url)
    assert refused.endswith("403")
    assert "--allow-local-users" in refused


@as_another_user
@pytest.mark.needs("curl")
async def test_another_user_is_refused_at_a_unix_socket_that_others_can_write() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "d.sock"
        async with serving_unix(app(), path, grace=0.1):
            assert path.stat().st_mode & 0o777 == 0o600
            for opened in (path, path.parent):
                opened.chmod(0o777)
            refused = await asyncio.to_thread(ask, "http://localhost/", "--unix-socket", path)
    assert refused.endswith("403")


async def test_an_owner_that_cannot_be_found_is_refused(
    http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_identity, "_ask_kernel", lambda *_: None)
    monkeypatch.setattr(peer_identity, "_PROC", ("/nowhere",))
    async with (
        serving(app(), "127.0.0.1", 0, guard=RequestGuard(own_user=True), grace=0.1) as url,
        http.get(url) as answer,
    ):
        assert answer.status == 403


@as_another_user
@pytest.mark.needs("curl")
async def test_members_of_the_group_may_use_the_socket() -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "d.sock"
        path.parent.chmod(0o755)
        for group, status in ((str(ANOTHER), "200"), ("0", "000")):
            async with serving_unix(app(), path, grace=0.1, group=group):
                assert path.stat().st_mode & 0o777 == 0o660
                answer = await asyncio.to_thread(ask, "http://localhost/", "--unix-socket", path)
            assert answer.endswith(status)
        with pytest.raises(InvalidInput, match="there is no group no-such-group"):
            async with serving_unix(app(), path, grace=0.1, group="no-such-group"):
                pass
