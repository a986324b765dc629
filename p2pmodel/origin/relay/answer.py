"""The answer to a forwarded request: headers as a client may see them, and the body, from one or several mirrors."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import aiohttp

from p2pmodel.core.content.manifest import git_blob_hasher
from p2pmodel.errors import Unavailable, WrongBytes
from p2pmodel.origin.failures import Failed, Refused, next_block
from p2pmodel.origin.headers import ContentRange, content_range, whole_number
from p2pmodel.origin.listing import following
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.relay.request import HubPath, RelayRequest
from p2pmodel.origin.requests import REDIRECTS
from p2pmodel.origin.responses import hub_hash

HOLD_BACK = 16 << 10
"""Bytes; few, so that a client behind a slow mirror does not wait long for them."""


class TailCheck:
    """Check of one file of `size` bytes, taken in order. `etag`: the hub's hash, a sha256 or a git blob id; a mirror
    may give the sha1 of the content instead."""

    def __init__(self, etag: str, size: int) -> None:
        self._etag = etag
        sha1 = hashlib.sha1(usedforsecurity=False)
        self._hashes = (hashlib.sha256(),) if len(etag) == 64 else (git_blob_hasher(size), sha1)
        self._held = b""

    def take(self, block: bytes) -> bytes:
        """Add `block`; the bytes that may be sent now."""
        for each in self._hashes:
            each.update(block)
        held = self._held + block
        cut = max(0, len(held) - HOLD_BACK)
        self._held = held[cut:]
        return held[:cut]

    def rest(self, source: str, path: str) -> bytes:
        """The end of the file, after all bytes. Raises WrongBytes, naming `source` and `path`."""
        got = [each.hexdigest() for each in self._hashes]
        if self._etag not in got:
            raise WrongBytes(source, path, f"hash {self._etag}", f"hash {got[0]}")
        return self._held


_HUB_HEADERS = ("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size")
"""Headers of hubs. Storage behind a redirect sends none of them, and has its own etags."""

_PASSED_ON = (
    *("Content-Type", "Content-Range", "Content-Disposition", "ETag", "Last-Modified", "Accept-Ranges"),
    *("X-Total-Count", "RateLimit", "RateLimit-Policy"),
)
_STALLED = 5.0
"""Seconds without a byte after which another mirror continues: hub clients give up after 10."""

_MAX_RETRIES = 5
"""Consecutive retries of the rest of a body without a byte of it."""


class RelayResponse:
    """One mirror's response `http`. `hub_headers`: headers of hubs, also from the redirects before it. `by_client`:
    whether the request carried the client's token."""

    def __init__(
        self, mirror: Mirror, http: aiohttp.ClientResponse, hub_headers: dict[str, str], *, by_client: bool
    ) -> None:
        self.mirror = mirror
        self.http = http
        self.hub_headers = hub_headers
        self.by_client = by_client
        for name in _HUB_HEADERS:
            if name in http.headers:
                hub_headers.setdefault(name, http.headers[name])

    @property
    def answers_head(self) -> bool:
        """Whether it is a redirect with all headers for the answer to a HEAD request."""
        redirect = self.http.method == "HEAD" and self.http.status in REDIRECTS
        return (
            redirect
            and "X-Linked-Etag" in self.hub_headers
            and whole_number(self.hub_headers.get("X-Linked-Size")) is not None
        )

    @property
    def status(self) -> int:
        """The status for the client, which receives no redirect."""
        return 200 if self.answers_head else self.http.status

    @property
    def etag(self) -> str | None:
        """The hub's hash of the file."""
        return hub_hash(self.hub_headers.get("X-Linked-Etag") or self.http.headers.get("ETag") or "")

    @property
    def length(self) -> int | None:
        """Bytes of the body, or of the body of a GET."""
        headers = self.hub_headers if self.answers_head else self.http.headers
        length = whole_number(headers.get("X-Linked-Size" if self.answers_head else "Content-Length"))
        return length if self.status != 304 else None

    @property
    def part(self) -> ContentRange | None:
        """The range of the file that the body holds; None if it is unknown."""
        if self.http.status == 206:
            return content_range(self.http.headers.get("Content-Range"))
        return None if self.length is None else ContentRange(0, self.length, self.length)

    @property
    def following(self) -> str | None:
        """Path and query of the next page of a listing, relative to this mirror's endpoint. Raises Refused."""
        return following(self.http.headers, self.http.url)

    def check_headers(self) -> None:
        """Raise Refused if a client cannot get its headers."""
        if any(not _sendable(value) for value in self.headers().values()):
            raise Refused("a malformed header", Unavailable)
        following(self.http.headers, self.http.url)

    def headers(self) -> dict[str, str]:
        """The headers that the client receives."""
        found = {name: self.http.headers[name] for name in _PASSED_ON if name in self.http.headers}
        if self.answers_head:
            found = {"Accept-Ranges": "bytes"}
        if "X-Linked-Etag" in self.hub_headers:
            found["ETag"] = self.hub_headers["X-Linked-Etag"]
        return found | self.hub_headers

    def close(self) -> None:
        """Return the connection to the pool after a complete body, else close it."""
        self.http.release()


def _sendable(value: str) -> bool:
    """Whether a header may have this value: no byte that is not UTF-8, no control character."""
    return not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" for c in value.replace("\t", " "))


class AnswerSource(Protocol):
    """Where an answer comes from, and the receiver of its outcome."""

    async def first(self, request: RelayRequest, check: Callable[[RelayResponse], None]) -> RelayResponse:
        """The first response that `check` accepts; `check` raises Refused for others."""

    def failed(self, mirror: Mirror, failure: Failed) -> None:
        """The response of `mirror` ended early."""

    def corrupted(self, mirror: Mirror, path: HubPath) -> None:
        """`mirror` sent wrong bytes for `path`, and a client has some of them."""


class RelayAnswer:
    """One answer. If the body ends early, a mirror with the same file sends the rest. The end of a whole file is held
    back until its hash is verified."""

    def __init__(self, source: AnswerSource, request: RelayRequest, response: RelayResponse) -> None:
        self._source = source
        self._request = request
        self._response = response
        self._part = response.part
        self._etag = response.etag
        self.status = response.status
        self.headers = response.headers()
        self.length = response.length
        self.by_client = response.by_client
        self.following = response.following
        """Path and query of the next page of a listing."""

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises WrongBytes, and as `Relay.open` does if no mirror has the rest."""
        got, retries, check = 0, 0, self._tail_check()
        while True:
            mirror = self._response.mirror
            block, failure = await self._next()
            got += len(block)
            mirror.relayed(len(block))
            taken = mirror.pace.take(len(block))  # before the `yield`, which may be the last
            ready = check.take(block) if check else block
            if ready:
                yield ready
            await mirror.pace.settle(taken)
            if not block and failure is None:
                if self.length is None or got >= self.length:
                    break
                failure = Failed("connection closed before the end")
            retries = 0 if block else retries + 1
            if failure is not None:
                await self._resume(got, failure, retries)
        self._response.mirror.served()
        if check:
            yield self._verified_tail(check)

    async def _next(self) -> tuple[bytes, Failed | None]:
        try:
            async with asyncio.timeout(_STALLED):
                return await next_block(self._response.http, self._response.mirror.pace.block)
        except TimeoutError:
            return b"", Failed("stalled", slow=True)

    def close(self) -> None:
        """Release the connection."""
        self._response.close()

    def _tail_check(self) -> TailCheck | None:
        """The check of a whole file with a known hash; None for other bodies."""
        part, etag = self._part, self._etag
        if not self._request.path.is_file or etag is None or part is None or part.start != 0 or part.end != part.total:
            return None
        return None if part.end is None else TailCheck(etag, part.end)

    def _verified_tail(self, check: TailCheck) -> bytes:
        mirror, path = self._response.mirror, self._request.path
        try:
            return check.rest(f"mirror {mirror.name}", path.raw)
        except WrongBytes:
            self._source.corrupted(mirror, path)
            raise

    async def _resume(self, got: int, failure: Failed, retries: int) -> None:
        """Request the rest of the body, after its first `got` bytes."""
        self._source.failed(self._response.mirror, failure)
        self._response.close()
        part = self._part
        if part is None or part.start is None or part.end is None or self._etag is None or retries > _MAX_RETRIES:
            raise Unavailable(f"mirror {self._response.mirror.name}: {failure.reason}")
        start, end, total = part.start + got, part.end, part.total

        def check(response: RelayResponse) -> None:
            if response.part != ContentRange(start, end, total) or response.etag != self._etag:
                raise Refused("it does not have the rest of this file", Unavailable)

        self._response = await self._source.first(self._request.part(start, end), check)
