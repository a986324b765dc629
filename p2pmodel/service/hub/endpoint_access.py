"""What an endpoint asks before a client gets a snapshot or a file of it: its right, the rules on signatures, the policy
on contents, the audit log."""

import os
from contextlib import suppress
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.network.rights import OPEN, Right
from p2pmodel.errors import AccessDenied, NotFound, RefusedContent
from p2pmodel.http.admission.authorization import RIGHT
from p2pmodel.node.snapshot.evidence.held_snapshots import HeldSnapshots
from p2pmodel.origin.relay.hub_paths import HubPath
from p2pmodel.service.hub.library import Library, OpenedContent
from p2pmodel.service.hub.published_snapshots import PublishedSnapshot
from p2pmodel.service.hub.repositories import repo_of
from p2pmodel.trust.audit.trail import AuditTrail
from p2pmodel.trust.contents.policy import CARD, CARD_READ, ContentPolicy


class EndpointAdmission(Protocol):
    """Decides which requests an endpoint admits."""

    def middleware(self) -> Middleware:
        """What stands before the handlers."""

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
        """What stands before the handlers."""
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
