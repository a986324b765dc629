"""Access to a coordinator: its own tokens, and the authoriser for all other clients and for single repositories."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from aiohttp import WSCloseCode, web

from p2pmodel.coordinator.server.credentials import CALLER, Caller, Credentials, Rights
from p2pmodel.coordinator.tokens import MEMBER_SETTING, WRONG_KEY
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.errors import AccessDenied, P2PModelError, Unavailable
from p2pmodel.http.admission.access import WRONG_TOKEN
from p2pmodel.http.admission.authorization import LocalUsers, presented_by
from p2pmodel.trust.access.authoriser import NO_CLIENTS, ClientAccess
from p2pmodel.trust.access.policy import ANYONE, LOCAL, Subject, Verb

LOOK_EVERY, LOOK_FOR_EACH = 1.0, 1e-3
"""Seconds between two looks whether the caller of a long request still has its right: at least, and for each such
request. A look takes 0.05 ms."""
_MOST_REASON = 120
"""Bytes of the reason with which a WebSocket is closed."""

RepositoryOf = Callable[[bytes], RepoId | None]
"""The repository of the torrent with a 20-byte info-hash; None if it is not known."""


class CoordinatorAccess:
    """The callers of one coordinator, and what it records of them."""

    def __init__(
        self, credentials: Credentials, clients: ClientAccess = NO_CLIENTS, *, certificates: bool = False
    ) -> None:
        self.credentials = credentials
        self.certificates = certificates
        """Whether requests need a client certificate."""
        self._authoriser = clients.authoriser
        self._audit = clients.audit
        self._users = LocalUsers()
        self._watched = 0
        """Long requests of which the right is looked at."""

    @property
    def may_change(self) -> bool:
        """Whether a client may lose a right while the coordinator runs."""
        return self._authoriser.may_change

    async def caller(self, request: web.Request, least: Rights, verb: Verb | None = None) -> Caller:
        """The caller of a request, with at least the rights `least`. A wrong token is marked for the throttle.

        `verb`: what the request does with no single repository; None: its handler asks for the repository.
        """
        try:
            found = await self._found(request)
            if self._authoriser.policy.has_rules:
                found = self._by_rules(found, least)
            else:
                found = self.credentials.required(found, least)
        except AccessDenied as error:
            given = request.headers.get("Authorization", "")
            request[WRONG_TOKEN] = bool(given) and error.code != "forbidden" and not self.credentials.knows(given)
            raise
        if verb is not None:
            found.check(verb, None)
        return found

    async def announcer(self, request: web.Request) -> Caller:
        """The caller of an announce or a scrape: by the key in its path, else as `caller`."""
        key = request.match_info.get("key")
        if key is None:
            return await self.caller(request, Rights.NONE)
        found = self._by_key(key)
        if found is None:
            if self.credentials.member is not None or self._authoriser.policy.has_rules:
                request[WRONG_TOKEN] = True
                raise AccessDenied(WRONG_KEY, hint=f"set {MEMBER_SETTING}")
            found = Caller(Rights.NONE)
        return self._complete(found, request)

    async def refused_later(self, request: web.Request, verb: Verb, repo: RepoId) -> P2PModelError:
        """Wait until the caller of a long request has lost its right, and return why."""
        self._watched += 1
        try:
            while True:
                await asyncio.sleep(max(LOOK_EVERY, LOOK_FOR_EACH * self._watched))
                try:
                    (await self.caller(request, Rights.NONE)).check(verb, repo)
                except Unavailable:
                    continue  # a directory does not answer: the right that was found before lasts
                except P2PModelError as error:
                    return error
        finally:
            self._watched -= 1

    @asynccontextmanager
    async def ending(self, request: web.Request, socket: web.WebSocketResponse, repo: RepoId) -> AsyncIterator[None]:
        """Close `socket` when its caller may no longer read `repo`, while the context lasts."""

        async def watch() -> None:
            error = await self.refused_later(request, Verb.READ, repo)
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=str(error).encode()[:_MOST_REASON])

        task = asyncio.create_task(watch()) if self.may_change else None
        try:
            yield
        finally:
            if task is not None:
                task.cancel()

    def record(
        self, request: web.Request, what: str, repo: RepoId, commit: str, info_hash: str = "", *, alias: str = ""
    ) -> None:
        """Record in the audit log that the caller gets the torrent or leases of a snapshot, publishes it, or moves an
        alias to it."""
        if self._audit is not None:
            verb = Verb.PUBLISH if what in ("publish", "alias") else Verb.READ
            right = request[CALLER].check(verb, repo)
            self._audit.record(right, request.remote or "", what, str(repo), commit, path=alias, digest=info_hash)

    async def _found(self, request: web.Request) -> Caller:
        presented = await presented_by(request, self._users)
        found = self.credentials.caller(presented.authorization)
        if found.rights is Rights.NONE:
            found = Caller(Rights.NONE, subject=self._unnamed(presented))
            known = await self._authoriser.known(presented)
            if known is not None:
                found = Caller(Rights.MEMBER, known.label, known)
        return self._complete(found, request)

    def _complete(self, found: Caller, request: web.Request) -> Caller:
        """The caller with the rules, and with the audit log for what they refuse."""
        found = replace(found, policy=self._authoriser.policy)
        return found if self._audit is None else replace(found, on_refused=partial(self._refused, request))

    def _refused(self, request: web.Request, subject: Subject, verb: Verb, repo: RepoId | None, reason: str) -> None:
        if self._audit is not None:
            self._audit.refuse(subject.label, reason, request.remote or "", verb, str(repo or ""))

    def _unnamed(self, presented: RequestCredentials) -> Subject:
        """The client without a token. With a token for members the own user needs it, too."""
        if presented.certificate:
            return Subject("certificate", presented.certificate)
        return LOCAL if presented.local and self.credentials.member is None else ANYONE

    def _by_key(self, key: str) -> Caller | None:
        known = self._authoriser.by_key(key)
        return Caller(Rights.MEMBER, known.label, known) if known is not None else self.credentials.by_key(key)

    def _by_rules(self, found: Caller, least: Rights) -> Caller:
        """The caller with the rights that the rules give it. Raises as `Credentials.required`."""
        subject, policy = found.subject, found.policy
        if subject.kind in ("token", "user", "oidc", "certificate"):
            rights = Rights.PUBLISHER if policy.may_ever(subject, Verb.PUBLISH) else Rights.MEMBER
            found = replace(found, rights=rights, name=subject.label)
        return found if least is Rights.NONE else self.credentials.required(found, least)
