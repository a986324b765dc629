"""Mutated HTTP responses to a whole origin: manifests, ranges and forwarded requests."""

import asyncio
import random
import threading
from typing import Any, Self
from urllib.parse import quote

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import P2PModelError
from p2pmodel.origin.origin import Origin
from p2pmodel.origin.relay.request import HubPath, RelayRequest
from scripts.fuzzing import seeds
from scripts.fuzzing.mutation import mutated_bytes, mutated_value
from scripts.fuzzing.seeds import as_json
from scripts.fuzzing.target import Target
from tests.support.virtual_clock import VirtualClock

_HEAD = (
    "HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n"
    'ETag: "{etag}"\r\nX-Repo-Commit: {commit}\r\n{more}\r\n'
)
_MORE = (
    "",
    "Transfer-Encoding: chunked\r\n",
    "Content-Encoding: gzip\r\n",
    'Link: <http://h/api/x?cursor=2>; rel="next"\r\n',
    "Location: http://127.0.0.1:1/x\r\n",
    "Content-Range: bytes 0-9/40\r\n",
    "Retry-After: 1e9\r\n",
    "X-Linked-Size: 99999999999999999999\r\nX-Linked-Etag: x\r\n",
)
_STATUSES = (200, 200, 200, 206, 301, 302, 304, 307, 401, 403, 404, 416, 429, 503, 999)


class HostileAnswers:
    """A server that sends mutated responses, and the event loop on which an origin reads them, in one thread."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._answer = b""
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        host, port = self._server.sockets[0].getsockname()
        self._endpoint = f"http://{host}:{port}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def target(self) -> Target:
        """The origin as a parser of responses."""
        bodies = [*seeds.model_infos(), *seeds.tree_pages()]
        return Target("answers of a mirror", self._run, bodies, _response)

    def _run(self, response: bytes) -> None:
        self._answer = response
        self._call(self._ask())

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _ask(self) -> None:
        manifest = seeds.manifest()
        file = manifest.files[1]
        settings = OriginSettings(connect_timeout=2, read_timeout=2, patience=0.001)
        path = HubPath(f"/{manifest.repo}/resolve/{manifest.commit}/{quote(file.path)}")
        mirror = MirrorSettings(name="m", endpoint=self._endpoint)
        async with Origin([mirror], settings, clock=VirtualClock()) as origin:
            failures = [
                await _failure(origin.manifest(Reference(manifest.repo, manifest.commit))),
                await _failure(origin.read(manifest, file, 0, 10, accept=lambda _: False)),
                await _failure(_relayed(origin, RelayRequest("GET", path, within=2.0))),
                await _failure(_relayed(origin, RelayRequest("HEAD", path, within=2.0))),
            ]
        for error in failures:
            if error is not None and not isinstance(error, P2PModelError):
                raise error
        for error in filter(None, failures):
            raise error


async def _failure(work: Any) -> Exception | None:
    try:
        await work
    except Exception as error:  # noqa: BLE001 - raised by the caller
        return error
    return None


async def _relayed(origin: Origin, request: RelayRequest) -> None:
    async with origin.relay(request) as answer:
        for value in answer.headers.values():
            value.encode()
        async for _ in answer.body():
            pass


def _response(seed: Any, dice: random.Random) -> bytes:
    body = as_json(mutated_value(seed, dice) if dice.random() < 0.6 else seed)
    if dice.random() < 0.3:
        body = mutated_bytes(body, dice)
    length = len(body) if dice.random() < 0.8 else dice.choice((0, 5, len(body) + 1, 10**18, "-1", "x", "9" * 50))
    head = _HEAD.format(
        status=dice.choice(_STATUSES),
        length=length,
        etag="ab" * 20,
        commit=seeds.COMMIT,
        more="".join(dice.sample(_MORE, dice.randint(0, 2))),
    ).encode()
    return (mutated_bytes(head, dice) if dice.random() < 0.4 else head) + body
