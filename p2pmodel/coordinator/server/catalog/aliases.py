"""The aliases of a coordinator, such as `org/name@stable`: names above its catalog, moved as a whole and rolled back.

An alias points at a commit that the catalog has. It counts before a revision name of the catalog: a seeder that
publishes again does not move it. The publisher that set it first owns it; only the owner and administrators move it.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import nodesemver

from p2pmodel.coordinator.catalog_messages import (
    MAX_ALIASES,
    Alias,
    AliasMove,
    alias_of,
    alias_plain,
    check_alias,
)
from p2pmodel.coordinator.server.catalog.catalog import Catalog, may_change
from p2pmodel.coordinator.server.catalog.publication import Publication
from p2pmodel.coordinator.server.credentials import Caller
from p2pmodel.core import notes
from p2pmodel.core.content.names import Reference, VersionRange, is_version
from p2pmodel.core.files.private_files import private_folder, write_private
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import Conflict, Forbidden, InvalidInput, NoSpace, NotFound, RevisionNotFound
from p2pmodel.os_errors import translated

_RECORD = "aliases.json"

_Key = tuple[str, str]
"""Folded name of the repository, and name of the alias."""


class Aliases:
    """Aliases in memory, with an optional folder that outlives a restart. `note` gets a line for each move."""

    def __init__(
        self,
        catalog: Catalog,
        folder: Path | None = None,
        *,
        note: Callable[[str], None] = lambda _line: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._catalog = catalog
        self._folder = folder
        self._note = note
        self._clock = clock
        self._held: dict[_Key, Alias] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> tuple[str, ...]:
        """Load the folder. Returns a line if its file could not be used. Raises LocalResource."""
        if self._folder is None:
            return ()
        try:
            plain = await asyncio.to_thread(_read, self._folder / _RECORD)
            self._held = {_key(alias.ref): alias for alias in map(alias_of, plain)}
        except (ValueError, TypeError, LookupError, InvalidInput):
            return (f"{_RECORD} in the catalog folder is not used: it is malformed",)
        return ()

    def all(self) -> list[Alias]:
        """All aliases, sorted by repository and name."""
        return [self._held[key] for key in sorted(self._held)]

    def find(self, ref: Reference) -> Alias | None:
        """The alias that `ref` names."""
        return self._held.get(_key(ref))

    def of(self, publication: Publication) -> list[str]:
        """Names of the aliases that point at the commit of a torrent, sorted."""
        repo, commit = publication.repo.folded, publication.commit
        return sorted(a.name for a in self._held.values() if a.repo.folded == repo and a.commit == commit)

    def resolved(self, ref: Reference) -> Reference:
        """What `ref` means: the commit of an alias, else `ref` itself."""
        alias = self.find(ref)
        return Reference(alias.repo, alias.commit) if alias is not None else ref

    def version(self, ref: VersionRange) -> Reference:
        """The name of the highest version in a range, of those that the catalog has a torrent of, and aliases.

        Raises RevisionNotFound.
        """
        aliases = {alias.name for alias in self._held.values() if alias.repo.is_spelling_of(ref.repo)}
        name = newest(ref.revision, {*self._catalog.names(ref.repo), *aliases})
        if name is None:
            raise RevisionNotFound(
                f"no version in this catalog matches {ref}", hint="publish its tag, or use another range"
            )
        return Reference(ref.repo, name)

    async def set(self, ref: Reference, revision: str, by: Caller) -> Alias:
        """Point the alias `ref` at the commit of `revision`, which the catalog must have a torrent of.

        Raises InvalidInput, RepoNotFound, RevisionNotFound, Forbidden for a name of another publisher, NoSpace,
        LocalResource; then nothing has changed.
        """
        check_alias(ref.revision)
        async with self._changing:
            target = self._catalog.resolve(self.resolved(Reference(ref.repo, revision)))
            held = self.find(ref)
            owner = held.owner if held else self._catalog.name_owner(Reference(target.repo, ref.revision))
            _check_owner(ref, owner, by)
            move = AliasMove(target.revision, by.name, self._clock())
            alias = held.moved(move) if held else Alias(target.repo, ref.revision, by.name, (move,))
            if held is None and len(self._held) >= MAX_ALIASES:
                raise NoSpace(f"this coordinator has {MAX_ALIASES} aliases, the most that it keeps")
            if alias != held:
                await self._store({**self._held, _key(ref): alias})
                self._note_move(alias, held, by)
            return alias

    async def rollback(self, ref: Reference, by: Caller) -> Alias:
        """Point the alias `ref` at the commit before its last move.

        Raises NotFound, Forbidden, Conflict if no earlier commit is known or its torrent was withdrawn, LocalResource.
        """
        async with self._changing:
            held = self._owned(ref, by)
            alias = held.rolled_back()
            if alias is None:
                raise Conflict(f"{ref} never pointed at another commit", hint=f"set it with 'p2pmodel alias set {ref}'")
            try:
                self._catalog.resolve(Reference(alias.repo, alias.commit))
            except NotFound:
                raise Conflict(
                    f"{ref} pointed at {alias.commit} before, which was withdrawn",
                    hint=f"set it with 'p2pmodel alias set {ref}', or publish that commit again",
                ) from None
            await self._store({**self._held, _key(ref): alias})
            self._note_move(alias, held, by)
            return alias

    async def remove(self, ref: Reference, by: Caller) -> Alias:
        """Remove the alias `ref`. Returns it. Raises NotFound, Forbidden, LocalResource."""
        async with self._changing:
            held = self._owned(ref, by)
            await self._store({key: alias for key, alias in self._held.items() if key != _key(ref)})
            text = f"alias {ref} was removed by {by.name}; it pointed at {held.commit[:12]}"
            self._note(notes.info("alias_removed", text, repo=str(ref.repo), alias=ref.revision, by=by.name))
            return held

    def _owned(self, ref: Reference, by: Caller) -> Alias:
        held = self.find(ref)
        if held is None:
            raise NotFound(f"{ref} is not an alias here", hint="'p2pmodel alias ls' lists them")
        _check_owner(ref, held.owner, by)
        return held

    async def _store(self, held: dict[_Key, Alias]) -> None:
        if self._folder is not None:
            await asyncio.to_thread(_write, self._folder, list(held.values()))
        self._held = held

    def _note_move(self, alias: Alias, before: Alias | None, by: Caller) -> None:
        origin = f" from {before.commit[:12]}" if before else ""
        self._note(
            notes.info(
                "alias_moved",
                f"alias {alias.ref} was moved{origin} to {alias.commit[:12]} by {by.name}",
                repo=str(alias.repo),
                alias=alias.name,
                before=before.commit if before else None,
                commit=alias.commit,
                by=by.name,
            )
        )


def _check_owner(ref: Reference, owner: str | None, by: Caller) -> None:
    if owner is not None and not may_change(owner, by):
        raise Forbidden(f"{ref} was set by {owner}", hint="that publisher or an administrator moves the name")


def _key(ref: Reference) -> _Key:
    return ref.repo.folded, ref.revision


def _read(path: Path) -> list[object]:
    with translated():
        try:
            plain = parse_json(path.read_bytes())
        except FileNotFoundError:
            return []
    return list(plain["aliases"])


def _write(folder: Path, aliases: list[Alias]) -> None:
    data = json.dumps({"aliases": [alias_plain(each) for each in aliases]}, indent=1).encode()
    with translated():
        private_folder(folder)
        write_private(folder / _RECORD, data)


def newest(version_range: str, names: Iterable[str]) -> str | None:
    """The name of the highest version in a range; None if there is none. Names that are no versions do not count.

    As in npm: `^1.2` is 1.2.0 and later below 2.0.0, `~1.2` below 1.3.0, and a pre-release counts only in a range that
    names one of the same version. `v1.2.0` is 1.2.0.
    """
    versions = [name for name in names if is_version(name) and nodesemver.valid(name, loose=False)]
    found = nodesemver.max_satisfying(versions, version_range, loose=False)
    return None if found is None else str(found)
