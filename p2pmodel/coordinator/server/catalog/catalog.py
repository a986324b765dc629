"""The catalog: which torrent holds `repo@revision`. In memory, with an optional folder that outlives a restart.

A commit has at most `MAX_CANDIDATES` torrents of each format, by different publishers: one of them may be invented.
Each torrent and each revision name has an owner: the publisher that set it.

1. Only the owner and administrators withdraw a torrent, move a name, or replace what stands outside a torrent's info
   dictionary (trackers, webseeds). Another publisher of the same torrent changes nothing.
2. Another info-hash of the same commit by the same publisher is refused until the first is withdrawn, or is reported
   as wrong. Torrents of publishers come before those that members assembled, then those with fewer reports, then the
   older ones. Where all places are taken, the one with most reports is replaced.
3. What members assembled (`assembly_routes`) has no owner: any publisher replaces it, and becomes the owner of the
   torrent when it publishes the same one. An assembly changes nothing that a publisher has set.
4. A name stays with its owner when the torrent of its commit is withdrawn by another publisher.

A torrent is served byte for byte as it was published.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from p2pmodel.coordinator.server.catalog.catalog_folder import CatalogFolder, RevisionName
from p2pmodel.coordinator.server.catalog.publication import Publication
from p2pmodel.coordinator.server.credentials import LOCAL, MEMBERS, Caller, Rights
from p2pmodel.core.content.names import Reference, RepoId, check_revision, is_commit
from p2pmodel.errors import Conflict, Forbidden, InvalidInput, NoSpace, NotFound, RepoNotFound, RevisionNotFound
from p2pmodel.swarm.torrents import Format

MAX_BYTES = 1 << 29
"""Bytes of all torrents together."""
MAX_TORRENTS = 10_000
MAX_CANDIDATES = 4
"""Torrents of one commit and format."""
MAX_REPORTS = 64
"""Addresses that are remembered to have reported one torrent."""
MAX_REVISIONS = 1_000
"""Revision names of one repository."""

Names = Mapping[RepoId, Mapping[str, RevisionName]]

ITSELF = Caller(Rights.PUBLISHER, LOCAL)
"""The publisher that runs the coordinator."""
ASSEMBLY = Caller(Rights.MEMBER, MEMBERS)
"""The members that assembled a torrent."""


@dataclass(frozen=True, slots=True)
class _Key:
    repo: RepoId
    commit: str
    format: Format
    info_hash: str

    @property
    def snapshot(self) -> tuple[RepoId, str, Format]:
        """What rival torrents have in common."""
        return self.repo, self.commit, self.format


class Catalog:
    """Torrents by repository, commit and format; revision names that point at commits.

    `max_owner` bounds the torrents of one publisher, and of all members together.
    """

    def __init__(
        self, folder: CatalogFolder | None = None, *, max_bytes: int = MAX_BYTES, max_owner: int = MAX_TORRENTS
    ) -> None:
        self._folder = folder
        self._max_owner = max_owner
        self._max_bytes = max_bytes
        self._torrents: dict[_Key, Publication] = {}
        self._by_hash: dict[str, _Key] = {}
        self._announced: dict[bytes, _Key] = {}
        self._owners: dict[str, str] = {}
        """By info-hash."""
        self._reports: dict[str, set[str]] = {}
        """By info-hash, the addresses that reported wrong content."""
        self._names: dict[RepoId, dict[str, RevisionName]] = {}
        self._changing = asyncio.Lock()

    async def load(self) -> tuple[str, ...]:
        """Load the folder. Returns a line about each file that could not be used. Raises LocalResource."""
        if self._folder is None:
            return ()
        stored = await asyncio.to_thread(self._folder.load)
        # An owned torrent wins over the one that it was replacing when the process ended.
        for publication in sorted(stored.publications, key=lambda p: p.info_hash not in stored.owners):
            owner, snapshot = stored.owners.get(publication.info_hash, MEMBERS), _key(publication).snapshot
            if owner != MEMBERS or all(key.snapshot != snapshot for key in self._torrents):
                self._put(publication, owner)
        self._names = {repo: dict(names) for repo, names in stored.names.items()}
        return stored.notes

    async def publish(
        self, publication: Publication, revisions: Iterable[str] = (), *, by: Caller = ITSELF
    ) -> Publication:
        """Add a torrent and point `revisions` at its commit. Returns the torrent that the catalog then serves.

        Raises Conflict for another torrent of the same commit, Forbidden for a name of another owner, InvalidInput for
        a bad revision, NoSpace when the catalog is full, LocalResource when the folder cannot be written; then nothing
        has changed.
        """
        async with self._changing:
            key, replaced = self._check(publication, by)
            names = self._names_after(publication, list(map(check_revision, revisions)), by)
            held = self._torrents.get(key)
            kept = publication if held is None or may_change(self._owners[held.info_hash], by) else held
            owners = {**self._owners, kept.info_hash: self._owner_after(kept, by)}
            if replaced is not None:
                del owners[replaced.info_hash]
            if self._folder is not None:
                await asyncio.to_thread(self._folder.save, kept, owners, names, replaced=replaced)
            if replaced is not None:
                self._drop(_key(replaced))
            self._put(kept, owners[kept.info_hash])
            self._names = names
            return kept

    async def withdraw(self, info_hash: str, *, by: Caller = ITSELF) -> None:
        """Remove a torrent, and the names of the same owner that no torrent is left for.

        Raises NotFound, Forbidden for a torrent of another owner, LocalResource.
        """
        async with self._changing:
            publication = self.by_info_hash(info_hash)
            key, owner = _key(publication), self._owners[publication.info_hash]
            if owner not in (MEMBERS, by.name) and not by.is_administrator:
                raise Forbidden(
                    f"{key.repo}@{key.commit} was published by {owner}",
                    hint="that publisher or an administrator withdraws it",
                )
            others = any(k.repo == key.repo and k.commit == key.commit and k != key for k in self._torrents)
            repo_names = {
                name: held
                for name, held in self._names.get(key.repo, {}).items()
                if others or held.commit != key.commit or not may_change(held.owner, by)
            }
            names = {**self._names, key.repo: repo_names}
            owners = {each: name for each, name in self._owners.items() if each != publication.info_hash}
            if self._folder is not None:
                await asyncio.to_thread(self._folder.remove, publication, owners, names)
            self._drop(key)
            self._names = names

    def report(self, info_hash: str, reporter: str) -> None:
        """Note that the client at the address `reporter` found wrong content in a torrent. Raises NotFound."""
        reports = self._reports.setdefault(self.by_info_hash(info_hash).info_hash, set())
        if len(reports) < MAX_REPORTS:
            reports.add(reporter)

    def find(self, ref: Reference, form: Format = "v2", *, without: Collection[str] = ()) -> Publication:
        """The first torrent of `ref` with an info-hash that is not in `without`. Raises RepoNotFound, RevisionNotFound,
        or NotFound when only the format is missing, or all are in `without`."""
        repo = self._spelling(ref.repo)
        commit = self._commit(Reference(repo, ref.revision))
        found = [k for k in self._torrents if k.repo == repo and k.commit == commit]
        fitting = [key for key in found if key.format == form and key.info_hash not in without]
        if fitting:
            return self._torrents[min(fitting, key=self._rank)]
        formats = {key.format for key in found}
        if form in formats:
            raise NotFound(f"there is no other torrent of {ref} in this catalog")
        if formats:
            raise NotFound(f"{ref} is not published as {form}", hint=f"ask for format={' or '.join(sorted(formats))}")
        raise self._absent(repo, ref)

    def resolve(self, ref: Reference) -> Reference:
        """The commit of `ref`, of which there is a torrent of any format. Raises RepoNotFound, RevisionNotFound."""
        repo = self._spelling(ref.repo)
        commit = self._commit(Reference(repo, ref.revision))
        if not any(k.repo == repo and k.commit == commit for k in self._torrents):
            raise self._absent(repo, ref)
        return Reference(repo, commit)

    def names(self, repo: RepoId) -> list[str]:
        """The revision names of a repository that have a torrent, sorted."""
        repo = self._spelling(repo)
        commits = {key.commit for key in self._torrents if key.repo == repo}
        return sorted(name for name, held in self._names.get(repo, {}).items() if held.commit in commits)

    def name_owner(self, ref: Reference) -> str | None:
        """The publisher that set a revision name; None if there is no such name."""
        held = self._names.get(ref.repo, {}).get(ref.revision)
        return held.owner if held else None

    def by_info_hash(self, info_hash: str) -> Publication:
        """The torrent with this info-hash, 64 (v2) or 40 (v1) hex digits. Raises NotFound."""
        key = self._by_hash.get(info_hash)
        if key is None:
            raise NotFound("no torrent with this info-hash is in this catalog")
        return self._torrents[key]

    def is_assembled(self, info_hash: str) -> bool:
        """Whether the torrent was assembled here, and no publisher has confirmed it since."""
        return self._owners.get(info_hash) == MEMBERS

    def admits(self, info_hash: bytes) -> bool:
        """Whether the catalog has a torrent that is announced by these 20 bytes."""
        return info_hash in self._announced

    def announced_by(self, info_hash: bytes) -> Publication | None:
        """The torrent that is announced by these 20 bytes."""
        key = self._announced.get(info_hash)
        return self._torrents[key] if key is not None else None

    def repo_of(self, info_hash: bytes) -> RepoId | None:
        """The repository of the torrent that is announced by these 20 bytes."""
        key = self._announced.get(info_hash)
        return key.repo if key is not None else None

    def publications(self) -> list[Publication]:
        """All torrents, sorted by repository and commit."""
        return [
            self._torrents[k] for k in sorted(self._torrents, key=lambda k: (k.repo, k.commit, k.format, self._rank(k)))
        ]

    def revisions(self, publication: Publication) -> list[str]:
        """Names that point at the torrent's commit, sorted."""
        commit = publication.commit
        return sorted(n for n, held in self._names.get(publication.repo, {}).items() if held.commit == commit)

    def _spelling(self, repo: RepoId) -> RepoId:
        """`repo` as the catalog spells it; a spelling of its own counts first."""
        held = {k.repo for k in self._torrents}
        return repo if repo in held else min((each for each in held if each.is_spelling_of(repo)), default=repo)

    def _commit(self, ref: Reference) -> str:
        held = self._names.get(ref.repo, {}).get(ref.revision)
        return held.commit if held else ref.revision

    def _absent(self, repo: RepoId, ref: Reference) -> NotFound:
        """The error for a reference without a torrent; `repo` as the catalog spells it."""
        hint = "seed it, or fetch it from the mirrors"
        if all(k.repo != repo for k in self._torrents):
            return RepoNotFound(f"{ref.repo} is not in this catalog", hint=hint)
        return RevisionNotFound(f"{ref} is not in this catalog", hint=hint)

    def _rank(self, key: _Key) -> tuple[bool, int]:
        """The place of a torrent among its rivals; those of one rank keep the order of their publication."""
        return self._owners[key.info_hash] == MEMBERS, len(self._reports.get(key.info_hash, ()))

    def _check(self, publication: Publication, by: Caller) -> tuple[_Key, Publication | None]:
        """Its key, and the rival that it replaces. Raises Conflict or NoSpace."""
        key = _key(publication)
        rivals = [k for k in self._torrents if k.snapshot == key.snapshot and k != key]
        replaced = self._replaced(key, rivals, by) if rivals else None
        others = [len(p.raw) for k, p in self._torrents.items() if k not in (key, replaced)]
        if sum(others) + len(publication.raw) > self._max_bytes or len(others) >= MAX_TORRENTS:
            raise NoSpace("the catalog is full", hint="withdraw torrents that are not needed")
        if key not in self._torrents and sum(owner == by.name for owner in self._owners.values()) >= self._max_owner:
            raise NoSpace(
                f"the catalog has {self._max_owner} torrents of {by.name or 'members'}, the most that its quota admits",
                hint="withdraw torrents that are not needed, or raise quotas.torrents_per_publisher",
            )
        return key, self._torrents[replaced] if replaced else None

    def _replaced(self, key: _Key, rivals: list[_Key], by: Caller) -> _Key | None:
        """The rival that a torrent takes the place of; None if there is room beside all. Raises Conflict."""
        assembled = [rival for rival in rivals if self._owners[rival.info_hash] == MEMBERS]
        if assembled and by.name != MEMBERS:
            return assembled[0]
        held = next(
            (r for r in rivals if self._owners[r.info_hash] == by.name and not self._reports.get(r.info_hash)), None
        )
        last = max(rivals, key=self._rank)
        is_full = len(rivals) >= MAX_CANDIDATES and key not in self._torrents
        if by.name == MEMBERS or held is not None or (is_full and not self._reports.get(last.info_hash)):
            rival = held or last
            owner = self._owners[rival.info_hash]
            raise Conflict(
                f"{key.repo}@{key.commit} is published with another info-hash, {rival.info_hash}",
                hint="one of the two was made from other files or by another version; its publisher"
                f"{f' {owner}' if owner else ''} or an administrator withdraws the wrong one",
            )
        return last if is_full else None

    def _owner_after(self, publication: Publication, by: Caller) -> str:
        return self._owners.get(publication.info_hash) or by.name

    def _names_after(
        self, publication: Publication, revisions: list[str], by: Caller
    ) -> dict[RepoId, dict[str, RevisionName]]:
        """All names once `revisions` point at the commit of `publication`."""
        repo, commit = publication.repo, publication.commit
        wanted = [name for name in revisions if name != commit]
        if any(map(is_commit, wanted)):
            raise InvalidInput(f"a revision that looks like a commit must be the torrent's own, {commit}")
        names = dict(self._names.get(repo, {}))
        for name in wanted:
            held = names.get(name)
            if held is None or may_change(held.owner, by):
                names[name] = RevisionName(commit, by.name)
            elif held.commit != commit and by.name != MEMBERS:
                raise Forbidden(
                    f"{repo}@{name} was set to {held.commit} by {held.owner}",
                    hint="that publisher or an administrator moves the name",
                )
        if len(names) > MAX_REVISIONS:
            raise NoSpace(f"{repo} has more than {MAX_REVISIONS} revision names here")
        return {**self._names, repo: names}

    def _put(self, publication: Publication, owner: str) -> None:
        key = _key(publication)
        self._torrents[key] = publication
        self._owners[publication.info_hash] = owner
        self._by_hash |= dict.fromkeys(publication.info_hashes, key)
        self._announced |= dict.fromkeys(publication.announced, key)

    def _drop(self, key: _Key) -> None:
        publication = self._torrents.pop(key)
        del self._owners[publication.info_hash]
        self._reports.pop(publication.info_hash, None)
        for info_hash in publication.info_hashes:
            del self._by_hash[info_hash]
        for announced in publication.announced:
            del self._announced[announced]


def _key(publication: Publication) -> _Key:
    return _Key(publication.repo, publication.commit, publication.format, publication.info_hash)


def may_change(owner: str, by: Caller) -> bool:
    """Whether a caller may change what `owner` has set."""
    return owner in (MEMBERS, by.name) or by.is_administrator
