"""The checks before a client of an endpoint gets a snapshot or a file: its right, the rules on signatures, the policy
on contents, the audit log; and error answers that hub clients understand (X-Error-Code, X-Error-Message).
"""

import os
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import DATASETS, KINDS, MODELS, SPACES
from p2pmodel.core.network.rights import OPEN, Right
from p2pmodel.errors import (
    AccessDenied,
    EntryNotFound,
    GatedLogin,
    GatedRepo,
    InvalidInput,
    NotFound,
    P2PModelError,
    RefusedContent,
    RepoNotFound,
    RevisionNotFound,
    TooManyRequests,
)
from p2pmodel.http.admission.access import WRONG_TOKEN, ServerToken, is_token
from p2pmodel.http.admission.authorization import RIGHT, Gate, LocalUsers, admitted, presented_by
from p2pmodel.http.error_responses import error_middleware
from p2pmodel.http.exposition import HEALTH, METRICS
from p2pmodel.node.hub.client_rights import ClientRights
from p2pmodel.node.snapshot.evidence.held_snapshots import HeldSnapshots
from p2pmodel.origin.relay.request import HubPath
from p2pmodel.service.hub.library import Library, OpenedContent
from p2pmodel.service.hub.published_snapshots import PublishedSnapshot
from p2pmodel.trust.audit_log import AuditTrail
from p2pmodel.trust.content_policy import CARD, CARD_READ, ContentPolicy

RETRY_AFTER = 5
"""Seconds after which a client may request an unavailable file again."""

_CODES: dict[type[P2PModelError], str] = {
    RepoNotFound: "RepoNotFound",
    RevisionNotFound: "RevisionNotFound",
    EntryNotFound: "EntryNotFound",
    GatedRepo: "GatedRepo",
    GatedLogin: "GatedRepo",
}


def refusal(
    status: int, message: str, *, code: str | None = None, commit: str | None = None, retry_after: int = RETRY_AFTER
) -> web.Response:
    """An error answer. `code` selects the exception that the client raises; `commit` lets it record an absent file.
    `retry_after` (seconds) goes with 429 and 503."""
    headers = {"X-Error-Message": " ".join(message.encode("ascii", "replace").decode().split())}
    if code is not None:
        headers["X-Error-Code"] = code
    if commit is not None:
        headers["X-Repo-Commit"] = commit
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(retry_after)
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return web.json_response({"error": message}, status=status, headers=headers)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer the errors that handlers raise."""
    try:
        return await _translated(request, handler)
    except web.HTTPError as error:
        return refusal(error.status, error.reason)


def _respond(error: P2PModelError) -> web.Response:
    wait = error.retry_after if isinstance(error, TooManyRequests) else RETRY_AFTER
    return refusal(error.http_status, str(error), code=_CODES.get(type(error)), retry_after=wait)


_translated = error_middleware(_respond)


def bearer(token: str | ServerToken, *, public: Collection[str] = ()) -> Middleware:
    """The middleware that admits only `Authorization: Bearer <token>`, or the token as a password; it belongs inside
    `errors`.
    Paths in `public` need no token.

    Without a token the answer is the hub's for private repositories: the client raises RepositoryNotFoundError, with
    the advice to log in. With a wrong token it is the hub's for invalid credentials.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization")
        if request.path in public:
            return await handler(request)
        if given is None:
            return refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
        if not is_token(given, token):
            request[WRONG_TOKEN] = True
            return refusal(HTTPStatus.UNAUTHORIZED, "Invalid credentials in Authorization header")
        return await handler(request)

    return check


KIND = "{kind:" + "|".join(KINDS) + "}"
REPO = r"{repo:[^/]+(?:/[^/]+)?}"
FILE_REPO = rf"{{repo:(?:(?:{DATASETS}|{SPACES})/)?[^/]+(?:/[^/]+)?}}"
"""Parts of routes."""


def repo_of(request: web.Request) -> str:
    """The repository that a request names, with its kind. Raises KeyError if its route has none."""
    kind, repo = request.match_info.get("kind", MODELS), request.match_info["repo"]
    return repo if kind == MODELS else f"{kind}/{repo}"


class EndpointAdmission(Protocol):
    """Decides which requests an endpoint admits."""

    def middleware(self) -> Middleware:
        """The middleware before the handlers."""

    async def check(self, request: web.Request, manifest: Manifest, asked_as: str) -> Right:
        """The right by which `request` reads a snapshot, requested as the repository `asked_as`. Raises without one."""


class EndpointAccess:
    """The checks of one endpoint; each may be absent."""

    def __init__(
        self,
        admission: EndpointAdmission | None = None,
        audit: AuditTrail | None = None,
        contents: ContentPolicy | None = None,
        held: HeldSnapshots | None = None,
    ) -> None:
        self._held = held
        self._admission = admission
        self._audit = audit
        self._contents = contents or ContentPolicy()

    @property
    def middlewares(self) -> list[Middleware]:
        """The middleware before the handlers."""
        return [self._admission.middleware()] if self._admission is not None else []

    def check_relayed(self, request: web.Request, path: HubPath) -> None:
        """Raise if the policy refuses a file that a mirror sends to the client, or it cannot be recorded."""
        file, repo = path.file, path.repo
        if file is None or repo is None:
            return
        self._contents.check_files(repo, [file])
        if file != CARD and self._contents.needs_card(repo):
            raise RefusedContent(f"{repo} is refused: its licence is not known here", hint="ask the operator")
        if self._audit is not None and request.method == "GET":
            right, client = request.get(RIGHT, OPEN), request.remote or ""
            self._audit.record(right, client, "file", str(repo), path.commit or "", path=file)

    async def check(self, request: web.Request, manifest: Manifest) -> None:
        """Raise unless the client may read the snapshot."""
        if self._admission is not None:
            try:
                request[RIGHT] = await self._admission.check(request, manifest, repo_of(request))
            except AccessDenied as error:
                self._refused(request, manifest, error)
                raise
        if self._held is not None:
            self._held.check(manifest)

    def _refused(self, request: web.Request, manifest: Manifest, error: AccessDenied) -> None:
        if self._audit is not None:
            subject = request.get(RIGHT, OPEN).subject
            self._audit.refuse(subject, error.what, request.remote or "", "read", str(manifest.repo))

    async def check_refs(self, request: web.Request, library: Library, refs: dict[str, str]) -> None:
        """Raise unless the client may read the snapshots that the refs of a repository point at."""
        if not request.get(RIGHT, OPEN).ask_mirror:
            return
        for name in list(refs)[:1]:
            with suppress(NotFound):
                snapshot = await library.snapshot(repo_of(request), name)
                await self.check(request, snapshot.manifest)

    async def check_file(
        self, request: web.Request, library: Library, snapshot: PublishedSnapshot, file: ManifestFile
    ) -> None:
        """Raise if the policy refuses `file`, or it cannot be recorded that the client gets it."""
        manifest = snapshot.manifest
        self._contents.check_files(manifest.repo, [file.path])
        if file.path != CARD and self._contents.needs_card(manifest.repo):
            self._contents.check_card(manifest.repo, await _card(library, snapshot))
        if self._audit is not None and request.method == "GET":
            right, client = request.get(RIGHT, OPEN), request.remote or ""
            of = str(manifest.repo), manifest.commit
            self._audit.record(right, client, "file", *of, path=file.path, digest=file.etag)


async def _card(library: Library, snapshot: PublishedSnapshot) -> bytes | None:
    """The verified model card; None if there is none. Raises as `Library.opened`."""
    card = snapshot.files.get(CARD)
    if card is None or card.size > CARD_READ:
        return None
    async with library.opened(snapshot, card, body=True) as opened:
        return await _whole(opened, card.size)


async def _whole(opened: OpenedContent, size: int) -> bytes:
    """The content, once all of it is there: the end of a file comes after its hash was right."""
    end = size if opened.ready is None else 0
    while opened.ready is not None and end < size:
        end = await opened.ready(end)
    assert opened.file is not None
    return os.pread(opened.file.fileno(), size, 0)


SYNC_LOG = "/sync-log"


class HubAdmission:
    """The gate of an endpoint, and the rights of clients to restricted models."""

    def __init__(self, gate: Gate, rights: ClientRights) -> None:
        self._gate = gate
        self._rights = rights
        self._users = LocalUsers()

    def middleware(self) -> Middleware:
        """Admits requests. It belongs inside the one that answers errors."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            wanted = asked(request)
            if wanted is None:
                return await handler(request)
            try:
                await admitted(request, self._gate, self._users, *wanted)
            except AccessDenied as error:
                refused = _login(error)
                if refused is None:
                    raise
                return refused
            return await handler(request)

        return admit

    async def check(self, request: web.Request, manifest: Manifest, asked_as: str) -> Right:
        """The right by which `request` reads the snapshot of `manifest`, requested as the repository `asked_as`.

        Raises as `Gate.admit` and `ClientRights.check`.
        """
        right: Right = request.get(RIGHT, OPEN)
        if manifest.repo.folded != asked_as.lower():  # an older name
            right = await self._gate.admit(await presented_by(request, self._users), "read", str(manifest.repo))
        if right.ask_mirror and manifest.private:
            reason = await self._rights.check(manifest, right.token)
            right = Right(right.subject, f"{right.reason}, {reason}", token=right.token)
        return right


def asked(request: web.Request) -> tuple[str, str | None] | None:
    """The verb and the repository of a request to an endpoint; None for its health."""
    path = request.path
    if path == HEALTH:
        return None
    if path in (METRICS, SYNC_LOG):
        return "operate", None
    if "repo" in request.match_info:
        return "read", repo_of(request)
    try:
        return "read", HubPath(request.rel_url.raw_path).repo_named
    except (InvalidInput, NotFound):
        return "read", None


def _login(error: AccessDenied) -> web.Response | None:
    """The hub's answer to a request without a token, or with a wrong one; None for other refusals."""
    if type(error) is AccessDenied:
        return refusal(HTTPStatus.UNAUTHORIZED, "Invalid username or password.", code="RepoNotFound")
    if error.code == "unknown_credential":
        return refusal(HTTPStatus.UNAUTHORIZED, f"Invalid credentials in Authorization header: {error}")
    return None
