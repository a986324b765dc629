"""The signatures of a coordinator: signed statements by repository and commit, and their routes.

The coordinator trusts none of them: its clients verify them. It keeps only statements that their own key has signed,
and bounds how many. A statement belongs to the publisher that sent it. It is replaced by a later one of the same
publisher, key and torrent, and by no other publisher.

PUT /signatures                           publish the signed statement in the body
GET /signatures?repo=org/name&commit=...  those over a snapshot, as a file of signed statements
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from p2pmodel.coordinator.catalog_messages import MAX_OF_OWNER, SIGNATURES
from p2pmodel.coordinator.server.catalog.catalog_routes import BODY_TIMEOUT
from p2pmodel.coordinator.server.catalog.publication import Publication
from p2pmodel.coordinator.server.credentials import CALLER, Rights
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.files.private_files import private_folder, write_private
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput, NoSpace, Unavailable
from p2pmodel.os_errors import translated
from p2pmodel.trust.access.policy import Verb
from p2pmodel.trust.signatures.sshsig import parse_signature
from p2pmodel.trust.signatures.statement import (
    MAX_STATEMENTS,
    NAMESPACE,
    SignedStatement,
    Statement,
    signed_statement,
    written,
)
from p2pmodel.trust.signatures.wire import Malformed

MAX_SNAPSHOTS = 10_000
_RECORD = "signatures.json"

_Snapshot = tuple[str, str]
"""Folded repository name, and commit."""


@dataclass(frozen=True, slots=True)
class _Held:
    owner: str
    signed: SignedStatement
    statement: Statement
    fingerprint: str

    @property
    def place(self) -> tuple[str, str, str]:
        """The place of the statement in the catalog: a later one with the same place replaces it."""
        return self.owner, self.fingerprint, self.statement.info_hash


@dataclass(slots=True)
class SignatureStore:
    """Signed statements in memory, with an optional folder that outlives a restart."""

    folder: Path | None = None
    _held: dict[_Snapshot, tuple[_Held, ...]] = field(default_factory=dict)
    _changing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def load(self) -> tuple[str, ...]:
        """Load the folder. Returns a line if its file could not be used. Raises LocalResource."""
        if self.folder is None:
            return ()
        try:
            plain = await asyncio.to_thread(_read, self.folder / _RECORD)
            for entry in plain:
                self._put(_held(signed_statement(entry), str(entry["owner"])))
        except (ValueError, TypeError, LookupError, InvalidInput):
            return (f"{_RECORD} in the catalog folder is not used: it is malformed",)
        return ()

    async def publish(self, owner: str, *signed: SignedStatement) -> None:
        """Add statements. Raises InvalidInput for one that its key has not signed, NoSpace, LocalResource."""
        added = await asyncio.to_thread(lambda: [_held(each, owner) for each in signed])
        async with self._changing:
            with ExitStack() as undo:
                undo.callback(setattr, self, "_held", dict(self._held))
                for held in added:
                    self._put(held)
                if self.folder is not None:
                    await asyncio.to_thread(_write, self.folder, self._plain())
                undo.pop_all()

    def over(self, repo: RepoId, commit: str) -> tuple[SignedStatement, ...]:
        """The statements over a snapshot, the latest of each publisher first."""
        return tuple(each.signed for each in self._held.get((repo.folded, commit), ()))

    def signed_by(self, publication: Publication) -> list[str]:
        """Fingerprints of the keys that have signed a torrent, or the files in it. Nothing says that they may."""
        held = self._held.get((publication.repo.folded, publication.commit), ())
        return sorted({each.fingerprint for each in held if each.statement.info_hash in ("", *publication.info_hashes)})

    def _put(self, new: _Held) -> None:
        key = new.statement.repo.folded, new.statement.commit
        others = [each for each in self._held.get(key, ()) if each.place != new.place]
        if not others and key not in self._held and len(self._held) >= MAX_SNAPSHOTS:
            raise NoSpace(f"this coordinator has signatures of {MAX_SNAPSHOTS} snapshots, the most that it keeps")
        own = [each for each in others if each.owner == new.owner][: MAX_OF_OWNER - 1]
        foreign = [each for each in others if each.owner != new.owner]
        if len(foreign) + 1 > MAX_STATEMENTS:
            raise NoSpace("this snapshot has as many signatures as it may")
        self._held[key] = tuple([new, *own, *foreign][:MAX_STATEMENTS])

    def _plain(self) -> list[Mapping[str, str]]:
        # Reversed: `load` puts each before those that it has.
        return [each.signed.plain | {"owner": each.owner} for held in self._held.values() for each in reversed(held)]


@dataclass(frozen=True, slots=True)
class SignatureRoutes:
    """Handlers around one store."""

    store: SignatureStore

    def table(self) -> list[tuple[str, str, Handler, Rights]]:
        """Method, path, handler and needed rights of each route."""
        return [
            ("GET", SIGNATURES, self.handle_get, Rights.NONE),
            ("PUT", SIGNATURES, self.handle_put, Rights.PUBLISHER),
        ]

    async def handle_put(self, request: web.Request) -> web.Response:
        """Publish. 204."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await request.read()
        except TimeoutError:
            raise Unavailable(f"the signature did not arrive within {BODY_TIMEOUT:g} s") from None
        try:
            signed = signed_statement(parse_json(body))
        except ValueError as error:
            raise InvalidInput(f"the body is not a signed statement: {error}") from None
        try:
            request[CALLER].check(Verb.PUBLISH, signed.parsed().repo)
        except Malformed as error:
            raise InvalidInput(f"this signature cannot be published: {error}") from None
        await self.store.publish(request[CALLER].name, signed)
        return web.Response(status=204)

    async def handle_get(self, request: web.Request) -> web.Response:
        """The statements over a snapshot; an empty list where there are none."""
        repo = RepoId(request.query.get("repo", ""))
        request[CALLER].check(Verb.READ, repo)
        found = self.store.over(repo, request.query.get("commit", ""))
        return web.Response(body=written(found), content_type="application/json")


def _held(signed: SignedStatement, owner: str) -> _Held:
    try:
        statement, signature = signed.parsed(), parse_signature(signed.signature)
        if signature.namespace != NAMESPACE or not signature.covers(signed.statement.encode()):
            raise Malformed("its key has not signed it")  # noqa: TRY301 - one message for all faults
    except Malformed as error:
        raise InvalidInput(f"this signature cannot be published: {error}") from None
    return _Held(owner, signed, statement, signature.key.fingerprint)


def _read(path: Path) -> list[Any]:
    try:
        plain = parse_json(path.read_bytes())
    except FileNotFoundError:
        return []
    return list(plain["signatures"])


@translated()
def _write(folder: Path, plain: list[Mapping[str, str]]) -> None:
    private_folder(folder)
    write_private(folder / _RECORD, json.dumps({"signatures": plain}, indent=1).encode())
