"""The catalog: which torrent holds `repo@revision`. In memory, with an optional folder that outlives a restart.

A commit has one torrent of each format. Publishing it again replaces everything outside the info dictionary (trackers,
webseeds); another info-hash is refused until the first is withdrawn. A torrent is served byte for byte as it was
published. No seeder has confirmed an assembled torrent (`assembly_routes`) until one publishes it.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from p2pmodel.coordinator.server.catalog_folder import CatalogFolder
from p2pmodel.coordinator.server.publication import Publication
from p2pmodel.core.names import Reference, RepoId, check_revision, is_commit
from p2pmodel.errors import Conflict, InvalidInput, NoSpace, NotFound, RepoNotFound, RevisionNotFound
from p2pmodel.swarm.torrents import Format

MAX_BYTES = 1 << 29
"""Bytes of all torrents together."""
MAX_TORRENTS = 10_000
MAX_REVISIONS = 1_000
"""Revision names of one repository."""

Refs = Mapping[RepoId, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Key:
    repo: RepoId
    commit: str
    format: Format


class Catalog:
    """Torrents by repository, commit and format; revision names that point at commits."""

    def __init__(self, folder: CatalogFolder | None = None, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._torrents: dict[_Key, Publication] = {}
        self._by_hash: dict[str, _Key] = {}
        self._announced: dict[bytes, _Key] = {}
        self._refs: dict[RepoId, dict[str, str]] = {}
        self._assembled: set[str] = set()
        """Info-hashes of torrents that were assembled here, and that no seeder has published."""
        self._changing = asyncio.Lock()

    async def load(self) -> tuple[str, ...]:
        """Load the folder. Returns a line about each file that could not be used. Raises LocalResource."""
        if self._folder is None:
            return ()
        stored = await asyncio.to_thread(self._folder.load)
        for publication in stored.publications:
            self._put(publication)
        self._refs = {repo: dict(names) for repo, names in stored.refs.items()}
        self._assembled = set(stored.assembled)
        return stored.notes

    async def publish(
        self, publication: Publication, revisions: Iterable[str] = (), *, assembled: bool = False
    ) -> None:
        """Add a torrent and point `revisions` at its commit. `assembled`: no seeder has confirmed it.

        Raises Conflict for another torrent of the same commit, InvalidInput for a bad revision, NoSpace when the
        catalog is full, LocalResource when the folder cannot be written; then nothing has changed.
        """
        commit = publication.commit
        names = {name: commit for name in map(check_revision, revisions) if name != commit}
        if any(map(is_commit, names)):
            raise InvalidInput(f"a revision that reads as a commit must be the torrent's own, {commit}")
        async with self._changing:
            key = self._check(publication)
            repo_refs = self._refs.get(key.repo, {}) | names
            if len(repo_refs) > MAX_REVISIONS:
                raise NoSpace(f"{key.repo} has more than {MAX_REVISIONS} revision names here")
            refs = {**self._refs, key.repo: repo_refs}
            if self._folder is not None:
                await asyncio.to_thread(self._folder.save, publication, refs, assembled=assembled)
            self._put(publication)
            self._refs = refs
            (self._assembled.add if assembled else self._assembled.discard)(publication.info_hash)

    async def withdraw(self, info_hash: str) -> None:
        """Remove a torrent, and the revision names of a commit that has no other. Raises NotFound, LocalResource."""
        async with self._changing:
            publication = self.by_info_hash(info_hash)
            key = _key(publication)
            others = any(k.repo == key.repo and k.commit == key.commit and k != key for k in self._torrents)
            names = {n: c for n, c in self._refs.get(key.repo, {}).items() if others or c != key.commit}
            refs = {**self._refs, key.repo: names}
            if self._folder is not None:
                await asyncio.to_thread(self._folder.remove, publication, refs)
            self._drop(key)
            self._refs = refs
            self._assembled.discard(publication.info_hash)

    def find(self, ref: Reference, form: Format = "v2") -> Publication:
        """The torrent of `ref`. Raises RepoNotFound, RevisionNotFound, or NotFound when only the format is missing."""
        formats = {k.format: k for k in self._torrents if k.repo == ref.repo and k.commit == self._commit(ref)}
        if form in formats:
            return self._torrents[formats[form]]
        if formats:
            raise NotFound(f"{ref} is not published as {form}", hint=f"ask for format={' or '.join(sorted(formats))}")
        if all(k.repo != ref.repo for k in self._torrents):
            raise RepoNotFound(f"{ref.repo} is not in this catalog", hint="seed it, or fetch it from the mirrors")
        raise RevisionNotFound(f"{ref} is not in this catalog", hint="seed it, or fetch it from the mirrors")

    def by_info_hash(self, info_hash: str) -> Publication:
        """The torrent with this info-hash, 64 (v2) or 40 (v1) hex digits. Raises NotFound."""
        key = self._by_hash.get(info_hash)
        if key is None:
            raise NotFound("no torrent with this info-hash is in this catalog")
        return self._torrents[key]

    def is_assembled(self, info_hash: str) -> bool:
        """Whether the torrent was assembled here, and no seeder has published it since."""
        return info_hash in self._assembled

    def admits(self, info_hash: bytes) -> bool:
        """Whether the catalog has a torrent that is announced by these 20 bytes."""
        return info_hash in self._announced

    def publications(self) -> list[Publication]:
        """All torrents, sorted by repository and commit."""
        return [self._torrents[k] for k in sorted(self._torrents, key=lambda k: (k.repo, k.commit, k.format))]

    def revisions(self, publication: Publication) -> list[str]:
        """Names that point at the torrent's commit, sorted."""
        commit = publication.commit
        return sorted(n for n, c in self._refs.get(publication.repo, {}).items() if c == commit)

    def _commit(self, ref: Reference) -> str:
        return self._refs.get(ref.repo, {}).get(ref.revision, ref.revision)

    def _check(self, publication: Publication) -> _Key:
        key = _key(publication)
        held = self._torrents.get(key)
        if held is not None and held.info_hashes != publication.info_hashes:
            raise Conflict(
                f"{key.repo}@{key.commit} is published with another info-hash, {held.info_hash}",
                hint="one of the two was made from other files or by another version; withdraw the wrong one",
            )
        others = [len(p.raw) for k, p in self._torrents.items() if k != key]
        if sum(others) + len(publication.raw) > self._max_bytes or len(others) >= MAX_TORRENTS:
            raise NoSpace("the catalog is full", hint="withdraw torrents that are not needed")
        return key

    def _put(self, publication: Publication) -> None:
        key = _key(publication)
        self._torrents[key] = publication
        self._by_hash |= dict.fromkeys(publication.info_hashes, key)
        self._announced |= dict.fromkeys(publication.announced, key)

    def _drop(self, key: _Key) -> None:
        publication = self._torrents.pop(key)
        for info_hash in publication.info_hashes:
            del self._by_hash[info_hash]
        for announced in publication.announced:
            del self._announced[announced]


def _key(publication: Publication) -> _Key:
    return _Key(publication.repo, publication.commit, publication.format)
