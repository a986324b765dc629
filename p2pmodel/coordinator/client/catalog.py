"""Asking coordinators for a torrent and publishing one to them. A coordinator's base URL may end in its token."""

import asyncio
import contextlib
import io
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

from p2pmodel.coordinator.announces import Role
from p2pmodel.coordinator.assembly_messages import assembly_path
from p2pmodel.coordinator.sources import Source
from p2pmodel.core.backoff import Backoff
from p2pmodel.core.names import Reference, printable
from p2pmodel.errors import AccessDenied, BadTorrent, Conflict, InvalidInput, NotFound, P2PModelError, Unavailable
from p2pmodel.origin.failures import reason_of
from p2pmodel.swarm.torrents import Format, parse

MAX_TORRENT = 16 << 20
"""Bytes of the largest answer that is read."""
PUBLISH_TIMEOUT = 30.0
REPUBLISH_EVERY = 60.0
"""Seconds after which a seeder publishes again, for a coordinator that lost its catalog."""

MAX_CATALOG = 4 << 20
_MAX_MESSAGE = 64 << 10
_FIRST_RETRY = 1.0
_LAST_RETRY = 60.0


@dataclass(frozen=True, slots=True)
class CatalogAnswer:
    """The first good .torrent, or None; `reasons` has a line for every coordinator that gave none. `lacking`: those
    that answered, and have none."""

    torrent: bytes | None
    reasons: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


async def find(
    ref: Reference,
    coordinators: Sequence[str],
    timeout: float,
    *,
    format: Format = "v2",  # noqa: A002
) -> CatalogAnswer:
    """Ask all `coordinators` at once for the torrent of `ref`; the first good answer within `timeout` seconds wins.

    An answer is good if it is a sound v2 or hybrid torrent of that repository, and of that commit if `ref` is
    pinned. Never raises for what a coordinator does.
    """
    if not coordinators:
        return CatalogAnswer(None)
    reasons: dict[str, str] = dict.fromkeys(coordinators, f"no answer within {timeout:g} s")
    lacking: set[str] = set()
    async with _session(timeout) as session:
        asked = {asyncio.create_task(_ask(session, url, ref, format)): url for url in reasons}
        try:
            async with asyncio.timeout(timeout):
                torrent = await _first_good(asked, reasons, lacking)
        except TimeoutError:
            torrent = None
        finally:
            await _cancel(asked)
    lines = tuple(f"{public_name(url)}: {reason}" for url, reason in reasons.items())
    return CatalogAnswer(torrent, lines, tuple(url for url in reasons if url in lacking))


async def publish(
    url: str,
    torrent: bytes,
    refs: Sequence[str] = (),
    token: str | None = None,
    *,
    source: Source | None = None,
    timeout: float = PUBLISH_TIMEOUT,
) -> None:
    """Publish a .torrent to the coordinator at `url`, and point the revision names `refs` at its commit.

    `source` says where leaseholders can pull the snapshot.

    Raises AccessDenied, Conflict (another torrent of that commit is there), InvalidInput (refused), Unavailable.
    """
    headers = {"Content-Type": "application/x-bittorrent"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if source:
        headers |= source.headers()
    query = [("revision", ref) for ref in refs]
    try:
        async with (
            _session(timeout) as session,
            session.put(
                f"{url}/catalog", params=query, data=io.BytesIO(torrent), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status >= 300:
                raise await _refusal(response, url)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"coordinator {public_name(url)} cannot be reached: {_reason(error)}") from None


async def report_wrong(coordinators: Sequence[str], digest: str, info_hash: str, timeout: float) -> bool:
    """Report to `coordinators` that the torrent of the assembly `digest` is wrong.

    Returns whether one of them had assembled it, and has withdrawn it. Failures of coordinators are ignored.
    """
    withdrawn = False
    async with _session(timeout) as session:
        for url in coordinators:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                query = {"info_hash": info_hash}
                async with session.delete(
                    f"{url}{assembly_path(digest)}", params=query, allow_redirects=False
                ) as response:
                    withdrawn |= response.status == 204
    return withdrawn


async def keep_published(
    coordinators: Sequence[str],
    torrent: bytes,
    refs: Sequence[str] = (),
    token: str | None = None,
    *,
    source: Source | None = None,
    on_note: Callable[[str], None] = lambda _line: None,
    on_published: Callable[[], None] = lambda: None,
    every: float = REPUBLISH_EVERY,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Publish to every coordinator now and every `every` seconds, until cancelled.

    A coordinator that fails is tried again after 1 to 60 seconds; a note tells when its state changes, not each time.
    `on_published` is called whenever one has taken it.
    """

    async def attempt(url: str) -> None:
        await publish(url, torrent, refs, token, source=source)
        on_published()

    async with asyncio.TaskGroup() as group:
        for url in dict.fromkeys(coordinators):
            group.create_task(_keep(url, partial(attempt, url), on_note, every, sleep))


async def catalog(url: str, timeout: float) -> list[dict[str, Any]]:
    """What the coordinator at `url` says of all its torrents, unchecked. Raises Unavailable, AccessDenied, ..."""
    try:
        async with _session(timeout) as session, session.get(f"{url}/catalog", allow_redirects=False) as response:
            if response.status != 200:
                raise await _refusal(response, url)
            body = await _bounded(response, MAX_CATALOG)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"coordinator {public_name(url)} cannot be reached: {_reason(error)}") from None
    with contextlib.suppress(ValueError, RecursionError, TypeError, KeyError):
        if body is not None:
            return [each for each in json.loads(body)["torrents"] if isinstance(each, dict)]
    raise Unavailable(f"coordinator {public_name(url)}: its catalog cannot be read")


def announce_url(coordinator: str) -> str:
    """The tracker URL of a coordinator, as it stands in a torrent."""
    return f"{coordinator.rstrip('/')}/announce"


def announcing_as(role: Role, tracker: str) -> str:
    """`tracker` with the role of who announces to it. Foreign trackers pass over what they do not know."""
    return f"{tracker}{'&' if '?' in tracker else '?'}role={role}" if tracker.startswith("http") else tracker


def in_zone(tracker: str, zone: str) -> str:
    """A tracker's URL that asks for peers of `zone` ("": any). Not for torrents, which nodes of all zones use."""
    if not zone or not tracker.startswith(("http://", "https://")):
        return tracker
    base, _, query = tracker.partition("?")
    return f"{base}?zone={quote(zone, safe='')}" + (f"&{query}" if query else "")


def public_name(url: str) -> str:
    """A coordinator as messages may name it: without the token that its path may hold."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "a malformed URL"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}:{port}" if port else f"{parts.scheme}://{name}"


async def _first_good(
    asked: dict[asyncio.Task[bytes], str], reasons: dict[str, str], lacking: set[str]
) -> bytes | None:
    pending = set(asked)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, P2PModelError):
                raise error
            reasons[asked[task]] = error.what
            if isinstance(error, NotFound):
                lacking.add(asked[task])
    return None


async def _ask(session: aiohttp.ClientSession, url: str, ref: Reference, form: Format) -> bytes:
    query = {"repo": str(ref.repo), "revision": ref.revision, "format": form}
    try:
        async with session.get(f"{url}/catalog", params=query, allow_redirects=False) as response:
            if response.status != 200:
                raise await _refusal(response, url)
            data = await _bounded(response, MAX_TORRENT)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(_reason(error)) from None
    if data is None:
        raise BadTorrent(f"its answer is larger than {MAX_TORRENT} bytes")
    await asyncio.to_thread(_check, data, ref)
    return data


def _check(data: bytes, ref: Reference) -> None:
    manifest = parse(data).manifest
    if manifest.repo != ref.repo or (ref.pinned and manifest.commit != ref.revision):
        raise BadTorrent(f"it answered with a torrent of {manifest.repo}@{manifest.commit}")


async def _keep(
    url: str,
    attempt: Callable[[], Coroutine[Any, Any, None]],
    on_note: Callable[[str], None],
    every: float,
    sleep: Callable[[float], Awaitable[object]],
) -> None:
    backoff, state = Backoff(_FIRST_RETRY, _LAST_RETRY), ""
    while True:
        try:
            await attempt()
            now, pause = "published", every
            backoff.succeeded()
        except P2PModelError as error:
            now, pause = f"not published: {error}", backoff.failed()
        if now != state:
            on_note(f"coordinator {public_name(url)}: {now}")
            state = now
        await sleep(pause)


async def _refusal(response: aiohttp.ClientResponse, url: str) -> P2PModelError:
    """The error that a status and a `{"code", "message", "hint"}` body stand for."""
    kinds = {401: AccessDenied, 403: AccessDenied, 404: NotFound, 409: Conflict, 400: InvalidInput, 413: InvalidInput}
    kind = kinds.get(response.status, Unavailable)
    body = await _bounded(response, _MAX_MESSAGE)
    message = _message(response, body) or f"it answered {response.status} without saying why"
    hint = "put its token into the coordinator's URL" if kind is AccessDenied else ""
    return kind(message if response.method == "GET" else f"coordinator {public_name(url)}: {message}", hint=hint)


def _message(response: aiohttp.ClientResponse, body: bytes | None) -> str:
    if body is None or response.content_type != "application/json":
        return ""
    with contextlib.suppress(ValueError, RecursionError):
        plain = json.loads(body)
        if isinstance(plain, dict) and isinstance(plain.get("message"), str):
            return printable(plain["message"], 300)
    return ""


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, or None if it is longer than `limit` bytes."""
    data = bytearray()
    async for chunk in response.content.iter_chunked(1 << 18):
        data += chunk
        if len(data) > limit:
            return None
    return bytes(data)


async def _cancel(tasks: dict[asyncio.Task[bytes], str]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _session(timeout: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout), auto_decompress=False)


def _reason(error: BaseException) -> str:
    return "its URL is malformed" if isinstance(error, aiohttp.InvalidURL) else reason_of(error)
