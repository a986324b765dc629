"""The answer to a request that was handed on: its headers as a client may see them, its body from whoever has it."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from typing import Protocol

import aiohttp
from yarl import URL

from p2pmodel.errors import Unavailable, WrongBytes
from p2pmodel.origin.failures import Failed, Refused
from p2pmodel.origin.headers import ContentRange, content_range
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.relay.hub_paths import HubPath
from p2pmodel.origin.relay.request import RelayRequest
from p2pmodel.origin.relay.tail_check import TailCheck
from p2pmodel.origin.requests import REDIRECTS, next_block

_HUBS_WORD = ("X-Repo-Commit", "X-Linked-Etag", "X-Linked-Size")
"""What only a hub says. Storage that it redirects to knows none of it, and has etags of its own."""

_PASSED_ON = (
    *("Content-Type", "Content-Range", "Content-Disposition", "ETag", "Last-Modified", "Accept-Ranges"),
    *("X-Total-Count", "RateLimit", "RateLimit-Policy"),
)
_HASH = re.compile(r'(?:W/)?"?([0-9a-fA-F]{40}|[0-9a-fA-F]{64})"?')
_STALLED = 5.0
"""Seconds without a byte after which another mirror shall go on: its client gives up after 10."""

_NEXT = re.compile(r'<([^<>]{1,4096})>;\s*rel="?next"?')
_DRY = 5
"""Times in a row that the rest of a body may begin anew without a byte of it."""


class RelayResponse:
    """One mirror's answer. `told`: what hubs said on the way to it. `by_client`: whether the client's own token opened
    it."""

    def __init__(
        self, mirror: Mirror, response: aiohttp.ClientResponse, told: dict[str, str], *, by_client: bool
    ) -> None:
        self.mirror = mirror
        self.response = response
        self.told = told
        self.by_client = by_client
        for name in _HUBS_WORD:
            if name in response.headers:
                told.setdefault(name, response.headers[name])

    @property
    def tells_enough(self) -> bool:
        """Whether it is a redirect that says of a file all that its headers would, to who asks for no more."""
        asked = self.response.method == "HEAD" and self.response.status in REDIRECTS
        return asked and "X-Linked-Etag" in self.told and self.told.get("X-Linked-Size", "").isdecimal()

    @property
    def status(self) -> int:
        """As the client gets it, who is sent nowhere else."""
        return 200 if self.tells_enough else self.response.status

    @property
    def etag(self) -> str | None:
        """The hub's own hash of the file."""
        said = self.told.get("X-Linked-Etag") or self.response.headers.get("ETag") or ""
        found = _HASH.fullmatch(said.strip())
        return found[1].lower() if found else None

    @property
    def length(self) -> int | None:
        """Bytes of the body, or of the one that a GET would have."""
        text = self.told["X-Linked-Size"] if self.tells_enough else self.response.headers.get("Content-Length", "")
        return int(text) if text.isdecimal() and self.status != 304 else None

    @property
    def part(self) -> ContentRange | None:
        """Which bytes of how many the body is, as far as it is known."""
        if self.response.status == 206:
            return content_range(self.response.headers.get("Content-Range"))
        return None if self.length is None else ContentRange(0, self.length, self.length)

    @property
    def following(self) -> str | None:
        """Path and query of the next page of a listing, as this mirror numbers them."""
        link = _NEXT.search(self.response.headers.get("Link", ""))
        if link is None:
            return None
        url, endpoint = self.response.url.join(URL(link[1], encoded=True)), URL(self.mirror.settings.endpoint)
        return url.raw_path_qs.removeprefix(endpoint.raw_path.rstrip("/") if url.origin() == endpoint.origin() else "")

    def headers(self) -> dict[str, str]:
        """What of it is passed on."""
        found = {name: self.response.headers[name] for name in _PASSED_ON if name in self.response.headers}
        if self.tells_enough:
            found = {"Accept-Ranges": "bytes"}
        if "X-Linked-Etag" in self.told:
            found["ETag"] = self.told["X-Linked-Etag"]
        return found | self.told

    def close(self) -> None:
        """Give the connection back if all was read, else close it."""
        self.response.release()


class AnswerSource(Protocol):
    """Whom an answer comes from, and who shall know how it ended."""

    async def first(self, question: RelayRequest, check: Callable[[RelayResponse], None]) -> RelayResponse:
        """The first answer that `check` does not refuse."""

    def failed(self, mirror: Mirror, failure: Failed) -> None:
        """`mirror` did not answer to the end."""

    def succeeded(self, mirror: Mirror) -> None:
        """`mirror` answered to the end."""

    def lied(self, mirror: Mirror, path: HubPath) -> None:
        """What came from `mirror` for `path` is wrong, and a client has some of it."""


class RelayAnswer:
    """One answer. A body that ends early is gone on with where it was, by whoever has the same file; the end of a whole
    file is not given out before its hash is right."""

    def __init__(self, mirrors: AnswerSource, question: RelayRequest, hop: RelayResponse) -> None:
        self._mirrors = mirrors
        self._question = question
        self._hop = hop
        self._part = hop.part
        self._etag = hop.etag
        self.status = hop.status
        self.headers = hop.headers()
        self.length = hop.length
        self.by_client = hop.by_client
        self.following = hop.following
        """Path and query of the next page of a listing."""

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises WrongBytes, and as `Relay.ask` does if nobody has the rest."""
        got, dry, proof = 0, 0, self._proof()
        while True:
            mirror = self._hop.mirror
            block, failure = await self._next()
            got += len(block)
            mirror.received += len(block)
            ready = proof.take(block) if proof else block
            if ready:
                yield ready
            await mirror.pace.spend(len(block))
            if not block and failure is None:
                if self.length is None or got >= self.length:
                    break
                failure = Failed("connection closed before the end")
            dry = 0 if block else dry + 1
            if failure is not None:
                await self._go_on(got, failure, dry)
        self._mirrors.succeeded(self._hop.mirror)
        if proof:
            yield self._proved(proof)

    async def _next(self) -> tuple[bytes, Failed | None]:
        try:
            async with asyncio.timeout(_STALLED):
                return await next_block(self._hop.response, self._hop.mirror.pace.block)
        except TimeoutError:
            return b"", Failed("stalled", slow=True)

    def close(self) -> None:
        """The client needs no more."""
        self._hop.close()

    def _proof(self) -> TailCheck | None:
        """Of a whole file, whose hash the answer names."""
        part, etag = self._part, self._etag
        if not self._question.path.is_file or etag is None or part is None or part.start != 0 or part.end != part.total:
            return None
        return None if part.end is None else TailCheck(etag, part.end)

    def _proved(self, proof: TailCheck) -> bytes:
        mirror, path = self._hop.mirror, self._question.path
        try:
            return proof.rest(f"mirror {mirror.name}", path.raw)
        except WrongBytes:
            self._mirrors.lied(mirror, path)
            raise

    async def _go_on(self, got: int, failure: Failed, dry: int) -> None:
        """Have the rest of the body, from the byte `got` of it on."""
        self._mirrors.failed(self._hop.mirror, failure)
        self._hop.close()
        part = self._part
        if part is None or part.start is None or part.end is None or self._etag is None or dry > _DRY:
            raise Unavailable(f"mirror {self._hop.mirror.name}: {failure.reason}")
        start, end, total = part.start + got, part.end, part.total

        def check(hop: RelayResponse) -> None:
            if hop.part != ContentRange(start, end, total) or hop.etag != self._etag:
                raise Refused("it has not the rest of this file", Unavailable)

        self._hop = await self._mirrors.first(self._question.part(start, end), check)
