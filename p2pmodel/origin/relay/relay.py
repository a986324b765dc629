"""Requests of hub clients that are handed on to the mirrors as they are: the answer of the first that helps.

Nothing of an answer is kept. Whose rights are used is the question's to say: a mirror's own token, if `own`; then the
client's, for mirrors that take such tokens and for no other; else nobody's.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field

from yarl import URL

from p2pmodel.core.names import printable
from p2pmodel.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    InvalidInput,
    NotFound,
    NotYet,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
)
from p2pmodel.origin.failures import Failed, Refused
from p2pmodel.origin.headers import retry_after
from p2pmodel.origin.mirrors.health import ordered
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.pool import MirrorPool
from p2pmodel.origin.relay.answer import RelayAnswer, RelayResponse
from p2pmodel.origin.relay.hub_paths import HubPath
from p2pmodel.origin.relay.request import RelayRequest
from p2pmodel.origin.requests import MAX_REDIRECTS, REDIRECTS, target_of
from p2pmodel.origin.verdict import TOKEN_HINT, listed, most_telling

_BY_CODE: dict[str, type[P2PModelError]] = {
    "GatedRepo": GatedRepo,
    "RepoNotFound": RepoNotFound,
    "RevisionNotFound": RevisionNotFound,
    "EntryNotFound": EntryNotFound,
}
_BY_STATUS: dict[int, type[P2PModelError]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    410: NotFound,
}
_TRY_AGAIN = {408, 409, 421, 423, 425, 429}
_NOT_IMPLEMENTED = 501
_ANSWERS = {200, 206, 304, 416}
_LEAST = 1.0
"""Seconds that the last mirror has to answer, however long the others took."""


def _any(_: RelayResponse) -> None:
    pass


@dataclass(frozen=True, slots=True)
class _RelayAttempt:
    mirror: Mirror
    token: str | None = field(repr=False)
    by_client: bool = False


class Relay:
    """Hands questions on to the mirrors of `fleet`."""

    def __init__(self, fleet: MirrorPool) -> None:
        self._fleet = fleet
        self._tainted: set[str] = set()
        """Paths of which clients may hold wrong bytes: a part of these is not asked for again."""

    @asynccontextmanager
    async def ask(self, question: RelayRequest) -> AsyncIterator[RelayAnswer]:
        """The answer, while the context lasts. Raises the most telling of the mirrors' refusals, Unavailable, and
        NotYet if a mirror only asks to wait."""
        hop = await self.first(question, _any)
        if question.method == "HEAD":
            self.succeeded(hop.mirror)
        relayed = RelayAnswer(self, question, hop)
        try:
            yield relayed
        finally:
            relayed.close()

    async def first(self, question: RelayRequest, check: Callable[[RelayResponse], None]) -> RelayResponse:
        """As `Mirrors`."""
        if question.path.raw in self._tainted:
            question = question.whole()
        attempts = self._attempts(question)
        trouble = _Failures(question, [attempt.mirror.name for attempt in attempts])
        until = time.monotonic() + question.within
        for number, attempt in enumerate(attempts):
            share = max(_LEAST, (until - time.monotonic()) / (len(attempts) - number))
            try:
                async with asyncio.timeout(share):
                    return await self._try(attempt, question, check)
            except TimeoutError:
                self.failed(attempt.mirror, Failed("timed out waiting for an answer", slow=True))
                trouble.add(attempt.mirror, "timed out waiting for an answer", Unavailable)
            except Failed as failure:
                self.failed(attempt.mirror, failure)
                trouble.add(attempt.mirror, failure.reason, NotYet if failure.wait else Unavailable)
            except Refused as refusal:
                trouble.add(attempt.mirror, refusal.reason, refusal.error)
        raise trouble.verdict()

    def failed(self, mirror: Mirror, failure: Failed) -> None:
        """As `Mirrors`."""
        mirror.failed(self._fleet.clock.now(), dry=True, wait=failure.wait, slow=failure.slow)
        line = f"mirror {mirror.name} does not help a client: {failure.reason}"
        self._fleet.notes.say(line, "relay", mirror.name, failure.reason)

    def succeeded(self, mirror: Mirror) -> None:
        """As `Mirrors`."""
        mirror.health = mirror.health.succeeded()

    def lied(self, mirror: Mirror, path: HubPath) -> None:
        """As `Mirrors`."""
        mirror.lied(self._fleet.clock.now())
        self._fleet.notes.say(
            f"mirror {mirror.name} sent a client wrong bytes of {printable(path.raw, 120)}", "lied", path.raw
        )
        self._tainted.add(path.raw)

    def _attempts(self, question: RelayRequest) -> list[_RelayAttempt]:
        by_name = {m.name: m for m in self._fleet.mirrors}
        mirrors = [by_name[h.name] for h in ordered((m.health for m in by_name.values()), self._fleet.clock.now())]
        takers = [m for m in mirrors if question.token and m.settings.takes_client_tokens]
        by_client = [_RelayAttempt(m, question.token, by_client=True) for m in takers]
        if question.own:
            return [_RelayAttempt(m, m.token) for m in mirrors] + by_client
        return by_client + [_RelayAttempt(m, None) for m in mirrors if m not in takers]

    async def _try(
        self, attempt: _RelayAttempt, question: RelayRequest, check: Callable[[RelayResponse], None]
    ) -> RelayResponse:
        mirror = attempt.mirror
        url = URL(f"{mirror.settings.endpoint}{question.path.raw}{question.query}", encoded=True)
        told: dict[str, str] = {}
        for _ in range(MAX_REDIRECTS + 1):
            headers = {**question.headers, **mirror.bearer(url, attempt.token)}
            response = await self._fleet.requests.send(mirror, url, headers, method=question.method, body=question.body)
            hop = RelayResponse(mirror, response, told, by_client=attempt.by_client)
            with ExitStack() as unwanted:
                unwanted.callback(hop.close)
                if response.status not in REDIRECTS or hop.tells_enough:
                    self._judge(hop, question)
                    check(hop)
                    unwanted.pop_all()
                    return hop
                url = target_of(url, response.headers.get("Location"))
        raise Refused(f"more than {MAX_REDIRECTS} redirects", Unavailable)

    def _judge(self, hop: RelayResponse, question: RelayRequest) -> None:
        """Return if the answer is one for the client. Raises Failed and Refused."""
        status, headers = hop.status, hop.response.headers
        if status not in _ANSWERS:
            raise self._refusal(status, headers)
        content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type == "text/html" and not question.path.is_page:
            raise Refused("an HTML page, which is no hub's answer", Unavailable)
        if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
            raise Refused("a compressed body though none was asked for", Unavailable)
        commit = hop.told.get("X-Repo-Commit")
        if question.path.commit and commit and commit != question.path.commit:
            raise Refused(f"stale, it serves commit '{printable(commit, 40)}'", Unavailable)

    def _refusal(self, status: int, headers: Mapping[str, str]) -> Failed | Refused:
        if status in _TRY_AGAIN or (status >= 500 and status != _NOT_IMPLEMENTED):
            return Failed(f"HTTP {status}", wait=retry_after(headers, self._fleet.clock.date()))
        code = headers.get("X-Error-Code", "")
        reason = f"HTTP {status} ({code})" if code in _BY_CODE else f"HTTP {status}"
        return Refused(reason, _BY_CODE.get(code) or _BY_STATUS.get(status, Unavailable))


class _Failures:
    """Why no mirror helped."""

    def __init__(self, question: RelayRequest, names: list[str]) -> None:
        self._what = f"{question.method} {printable(question.path.raw, 120)}"
        self._names = list(dict.fromkeys(names))
        self._reasons: dict[str, str] = {}
        self._kinds: list[type[P2PModelError]] = []

    def add(self, mirror: Mirror, reason: str, kind: type[P2PModelError]) -> None:
        """What one of them said, or did not. Of two answers of one mirror the later counts."""
        self._reasons[mirror.name] = reason
        self._kinds.append(kind)

    def verdict(self) -> P2PModelError:
        """The most telling of it."""
        if not self._names:
            return Unavailable(f"nobody to ask for {self._what}: no mirror is configured")
        kind = most_telling(self._kinds)
        if kind is Unavailable:
            kind = next((k for k in (NotFound, InvalidInput, NotYet) if k in self._kinds), Unavailable)
        hint = TOKEN_HINT if issubclass(kind, AccessDenied) else ""
        return kind(f"no mirror answers {self._what} ({listed(self._reasons, self._names)})", hint=hint)
