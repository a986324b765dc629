"""Requests of hub clients forwarded to the mirrors; the first usable response is returned unchanged.

No response is stored. A request carries a mirror's own token if `own` is set, else the client's token, else none. A
client's token goes only to mirrors that accept client tokens.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from p2pmodel.core import notes
from p2pmodel.core.content.names import printable
from p2pmodel.errors import AccessDenied, InvalidInput, NotFound, NotYet, P2PModelError, Unavailable
from p2pmodel.origin.failures import Failed, Refused, naming, status_failure
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.relay.answer import RelayAnswer, RelayResponse
from p2pmodel.origin.relay.request import HubPath, RelayRequest
from p2pmodel.origin.requests import MAX_REDIRECTS, REDIRECTS, mirror_place
from p2pmodel.origin.responses import compression, is_html
from p2pmodel.origin.verdict import TOKEN_HINT, listed, most_specific

_USABLE = {200, 206, 304, 416}
_LEAST = 1.0
"""Seconds that the last mirror has for its response, however long the others took."""


def _any(_: RelayResponse) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _RelayAttempt:
    mirror: Mirror
    token: str | None = field(repr=False)
    by_client: bool = False


class Relay:
    """Forwards requests to the mirrors of `pool`."""

    def __init__(self, pool: MirrorPool) -> None:
        self._pool = pool
        self._tainted: set[str] = set()
        """Paths of which clients may hold wrong bytes: only whole files are requested from these."""

    @asynccontextmanager
    async def open(self, request: RelayRequest) -> AsyncIterator[RelayAnswer]:
        """The answer, while the context lasts. Raises the most specific of the mirrors' errors, Unavailable, or NotYet
        if a mirror demands a wait."""
        response = await self.first(request, _any)
        if request.method == "HEAD":
            response.mirror.served()
        answer = RelayAnswer(self, request, response)
        try:
            yield answer
        finally:
            answer.close()

    async def first(self, request: RelayRequest, check: Callable[[RelayResponse], None]) -> RelayResponse:
        """As `AnswerSource`."""
        if request.path.raw in self._tainted:
            request = request.whole()
        attempts = self._attempts(request)
        failures = _Failures(request, [attempt.mirror.name for attempt in attempts])
        until = time.monotonic() + request.within
        for number, attempt in enumerate(attempts):
            share = max(_LEAST, (until - time.monotonic()) / (len(attempts) - number))
            try:
                async with asyncio.timeout(share):
                    return await self._try(attempt, request, check)
            except TimeoutError:
                failure = Failed("timed out waiting for an answer", slow=True)
                self.failed(attempt.mirror, failure)
                failures.add(attempt.mirror, failure.reason, Unavailable)
            except Failed as failure:
                self.failed(attempt.mirror, failure)
                failures.add(attempt.mirror, failure.reason, NotYet if failure.wait else Unavailable)
            except Refused as refusal:
                failures.add(attempt.mirror, refusal.reason, refusal.error)
        raise failures.verdict()

    def failed(self, mirror: Mirror, failure: Failed) -> None:
        """As `AnswerSource`."""
        mirror.failed(failure, self._pool.clock.now(), no_bytes=True)
        line = f"mirror {mirror.name} failed for a client: {failure.reason}"
        self._pool.notes.add(
            notes.warning("mirror_failed", line, mirror=mirror.name), "relay", mirror.name, failure.reason
        )

    def corrupted(self, mirror: Mirror, path: HubPath) -> None:
        """As `AnswerSource`."""
        mirror.corrupted(self._pool.clock.now())
        self._pool.notes.add(
            notes.error(
                "mirror_corrupted",
                f"mirror {mirror.name} sent a client wrong bytes of {printable(path.raw, 120)}",
                mirror=mirror.name,
            ),
            "corrupted",
            path.raw,
        )
        self._tainted.add(path.raw)

    def _attempts(self, request: RelayRequest) -> list[_RelayAttempt]:
        repo = request.path.repo
        mirrors = [m for m in self._pool.preferred() if m.relays and (repo is None or m.settings.serves(repo))]
        takers = [m for m in mirrors if request.token and m.settings.takes_client_tokens]
        by_client = [_RelayAttempt(m, request.token, by_client=True) for m in takers]
        if request.own:
            return [_RelayAttempt(m, m.token) for m in mirrors] + by_client
        return by_client + [_RelayAttempt(m, None) for m in mirrors if m not in takers]

    async def _try(
        self, attempt: _RelayAttempt, request: RelayRequest, check: Callable[[RelayResponse], None]
    ) -> RelayResponse:
        mirror = attempt.mirror
        requests = self._pool.requests
        place = mirror_place(mirror, f"{request.path.raw}{request.query}")
        hub_headers: dict[str, str] = {}
        for _ in range(MAX_REDIRECTS + 1):
            headers = {**request.headers, **mirror.bearer(place.url, attempt.token)}
            http = await requests.send(mirror, place, headers, method=request.method, body=request.body)
            response = RelayResponse(mirror, http, hub_headers, by_client=attempt.by_client)
            with ExitStack() as unwanted:
                unwanted.callback(response.close)
                if http.status not in REDIRECTS or response.answers_head:
                    with naming(http.proxy):
                        self._check(response, request)
                        check(response)
                    unwanted.pop_all()
                    return response
                place = requests.redirected(mirror, http)
        raise Refused(f"more than {MAX_REDIRECTS} redirects", Unavailable)

    def _check(self, response: RelayResponse, request: RelayRequest) -> None:
        """Return if the client may have this response. Raises Failed and Refused."""
        status, headers = response.status, response.http.headers
        if status not in _USABLE:
            raise status_failure(status, headers, self._pool.clock.date())
        if is_html(headers) and not request.path.is_page:
            raise Refused("an HTML page instead of a hub's response", Unavailable)
        if compression(headers):
            raise Refused("a compressed body that was not requested", Unavailable)
        response.check_headers()
        commit = response.hub_headers.get("X-Repo-Commit")
        if request.path.commit and commit and commit != request.path.commit:
            raise Refused(f"stale, it serves commit '{printable(commit, 40)}'", Unavailable)


class _Failures:
    """Why no mirror gave a usable response."""

    def __init__(self, request: RelayRequest, names: list[str]) -> None:
        self._what = f"{request.method} {printable(request.path.raw, 120)}"
        self._names = list(dict.fromkeys(names))
        self._reasons: dict[str, str] = {}
        self._kinds: list[type[P2PModelError]] = []

    def add(self, mirror: Mirror, reason: str, kind: type[P2PModelError]) -> None:
        """`mirror` failed for `reason`; its later failure replaces an earlier one."""
        self._reasons[mirror.name] = reason
        self._kinds.append(kind)

    def verdict(self) -> P2PModelError:
        """The most specific of the errors."""
        if not self._names:
            return Unavailable(f"no source for {self._what}: no mirror is configured")
        kind = most_specific(self._kinds)
        if kind is Unavailable:
            kind = next((k for k in (NotFound, InvalidInput, NotYet) if k in self._kinds), Unavailable)
        hint = TOKEN_HINT if issubclass(kind, AccessDenied) else ""
        return kind(f"no mirror answers {self._what} ({listed(self._reasons, self._names)})", hint=hint)
