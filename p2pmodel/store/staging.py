"""Unfinished files: in the repository's cache folder, under names that no other program trusts.

Invariants, to re-check when editing:
1. A staged file has the name of its content, not of a commit: every commit with that content resumes it.
2. Only the owner of a claim (`StagedContents.claim`) writes or removes a staged file and its record.
3. Before a content is staged, a manifest that lists it is recorded. What no recorded manifest lists is removed.
"""

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import COMMIT
from p2pmodel.core.files.private_files import remove_leftovers
from p2pmodel.os_errors import translated
from p2pmodel.store.content_locks import ContentClaim, ContentClaims
from p2pmodel.store.files.disk import copy_sparse, names_in, read_json, temporary, write_atomic
from p2pmodel.store.files.folder import read_regular
from p2pmodel.store.files.leaf_record import LEAVES
from p2pmodel.store.files.range_set import SUFFIX, RangeSet, read_record, read_synced, write_record
from p2pmodel.store.files.space import allocated
from p2pmodel.store.manifests import record_manifest
from p2pmodel.store.private_folder import PrivateFolder

_PART = ".part"


@dataclass(frozen=True, slots=True)
class StagedContent:
    """The staged files of one content: bytes on disk, and when the last one was written (seconds since 1970)."""

    size: int
    written: float


class StagedContents:
    """`.p2pmodel/staging/<etag>.part` of one repository.

    Where a snapshot has a content several times, each further copy has a staged file of its own,
    `<etag>.<number>.part`: a torrent writes each file by itself.
    """

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self.claims = ContentClaims(private)

    def path_of(self, file: ManifestFile) -> Path:
        """The staged file of a content; its folder exists."""
        return self.paths_of([file])[0]

    @translated()
    def paths_of(self, files: Sequence[ManifestFile]) -> tuple[Path, ...]:
        """The staged files of all `files` of a manifest; their folder exists.

        The paths lead through the open private folder: they are right for as long as the RepoCache lives.
        """
        folder = self._private.made / "staging"
        folder.mkdir(parents=True, exist_ok=True)
        copies: dict[str, int] = {}
        paths = []
        for file in files:
            number = copies[file.etag] = copies.get(file.etag, -1) + 1
            paths.append(folder / (f"{file.etag}.{number}{_PART}" if number else f"{file.etag}{_PART}"))
        return tuple(paths)

    @translated()
    def list(self, manifest: Manifest) -> None:
        """Record `manifest` before one of its contents is staged (invariant 3)."""
        private = self._private.made
        if not (private / "manifests" / f"{manifest.commit}.json").is_file():
            record_manifest(private, manifest)

    @translated()
    def names(self) -> frozenset[str]:
        """Names of the staged files and their records."""
        return frozenset(names_in(self._folder))

    @translated()
    def held(self) -> dict[str, StagedContent]:
        """The staged contents, by etag."""
        found: dict[str, StagedContent] = {}
        for name in names_in(self._folder):
            if name.endswith(_PART):
                path, etag = self._folder / name, _etag(name)
                with suppress(FileNotFoundError):
                    before = found.get(etag, StagedContent(0, 0.0))
                    size, written = allocated(path), path.lstat().st_mtime
                    found[etag] = StagedContent(before.size + size, max(before.written, written))
        return found

    def size_of(self, files: Iterable[ManifestFile]) -> int:
        """Bytes on disk of the unfinished ones of `files`; each content counts once."""
        held = self.held()
        sizes = {file.etag: file.size for file in files if file.etag in held}
        return sum(min(size, held[etag].size) for etag, size in sizes.items())

    @translated()
    def detach(self) -> None:
        """Replace each staged file by a copy: a process that was passed over may still write to the open file."""
        for name in names_in(self._folder):
            if name.endswith(_PART):
                copy_sparse(self._folder / name, fresh := temporary(self._private.tmp))
                fresh.replace(self._folder / name)

    def readable_path(self, file: ManifestFile) -> Path:
        """Where the staged file of a content is, if there is one. Makes nothing."""
        return self._folder / f"{file.etag}{_PART}"

    def recorded(self, path: Path, file: ManifestFile) -> RangeSet:
        """The ranges of the staged file `path` that were written, as recorded."""
        try:
            return read_record(path, file, path.lstat().st_size)
        except OSError:
            return RangeSet()

    def checked(self, path: Path, file: ManifestFile, root: str) -> RangeSet:
        """The ranges of the staged file `path` that passed the checks of the tree with this `root`, as recorded."""
        try:
            return read_record(path, file, path.lstat().st_size, root=root)
        except FileNotFoundError:
            return RangeSet()

    @translated()
    def record_checked(self, path: Path, file: ManifestFile, root: str, ranges: RangeSet) -> None:
        """Record that these ranges of the staged file `path` are on disk and passed the checks of the tree with this
        `root`. Nothing if there is no such file."""
        if not path.exists():
            return
        synced = read_synced(path, file)
        for start, end in ranges.gaps(0, file.size):
            synced.remove(start, end)
        write_record(path, file, ranges, synced, root=root)

    @translated()
    def claim(self, files: Iterable[ManifestFile]) -> ContentClaim | None:
        """Become the owner of these contents; None while another owner has one of them. Does not wait."""
        return self.claims.claim(file.etag for file in files)

    @translated()
    def remove(self, etags: Iterable[str]) -> int:
        """Remove these contents, except those with an owner. Returns the bytes that they occupied."""
        held, freed = self.held(), 0
        if not self._private.writable:
            return 0
        for etag in set(etags).intersection(map(_etag, names_in(self._folder))):
            owned = self.claims.claim([etag])
            if owned is not None:
                try:
                    self.drop([etag])
                finally:
                    owned.release()
                freed += held[etag].size if etag in held else 0
        return freed

    @translated()
    def drop(self, etags: Iterable[str]) -> None:
        """Remove these contents, which belong to the caller, and their records."""
        gone = set(etags) if self._private.writable else set()
        for name in names_in(self._folder):
            if _etag(name) in gone:
                (self._folder / name).unlink(missing_ok=True)

    @translated()
    def sweep(self, private: Path) -> None:
        """Remove what no recorded manifest lists (invariant 3), and the folders of earlier versions."""
        shutil.rmtree(private / "partial", ignore_errors=True)
        names = names_in(self._folder)  # before the manifests are read: what is staged meanwhile is not among them
        for name in names:
            if COMMIT.fullmatch(name):
                shutil.rmtree(self._folder / name, ignore_errors=True)
            elif not name.endswith((_PART, SUFFIX, LEAVES)):
                remove_leftovers(self._folder, name)
        staged = {_etag(name) for name in names if name.endswith(_PART)}
        records = {_etag(name) for name in names if name.endswith((SUFFIX, LEAVES))}
        unlisted = set(staged)
        for path in (private / "manifests").glob("*.json") if staged else ():
            unlisted -= _listed(path)
        self.remove(unlisted | (records - staged))

    @property
    def _folder(self) -> Path:
        return self._private.existing / "staging"


class Staging:
    """What one commit of a repository has in the private folder beside its staged contents: the mark that its download
    began and has not ended, its lock, and the torrent by which it was last downloaded."""

    def __init__(self, private: PrivateFolder, contents: StagedContents, commit: str) -> None:
        self.contents = contents
        self._private = private
        self._commit = commit

    @translated()
    def lock_path(self) -> Path:
        """The lock file of this commit; its folder exists.

        What killed processes left in the private folder is removed.
        """
        private = self._private.made
        remove_leftovers(self._private.tmp, "")
        if self._private.writable:
            self.contents.sweep(private)
        (private / "locks").mkdir(parents=True, exist_ok=True)
        return private / "locks" / f"{self._commit}.lock"

    @translated()
    def begin(self, manifest: Manifest, refs: Sequence[str]) -> None:
        """Mark that the download of `manifest` has begun; `refs` will point at it."""
        self.contents.list(manifest)
        mark = json.dumps({"refs": [*refs]}).encode()
        write_atomic(self._private.made / "unfinished" / self._mark, mark, via=self._private.tmp, durable=False)

    @translated()
    def forget(self) -> None:
        """Remove the mark."""
        (self._private.places[0] / "unfinished" / self._mark).unlink(missing_ok=True)

    def refs(self) -> tuple[str, ...] | None:
        """The names that will point at the commit once its download has ended; None if none has begun."""
        plain = read_json(self._private.existing / "unfinished" / self._mark)
        if not isinstance(plain, dict) or not isinstance(plain.get("refs"), list):
            return None
        return tuple(name for name in plain["refs"] if isinstance(name, str))

    @translated()
    def save_metainfo(self, raw: bytes) -> None:
        """Save the .torrent: with it the snapshot can be seeded without hashing it."""
        write_atomic(self._private.made / "torrents" / self._torrent, raw, via=self._private.tmp)

    def load_metainfo(self) -> bytes | None:
        """The .torrent last saved for this commit."""
        for place in self._private.places:
            with suppress(OSError):
                return read_regular(place / "torrents" / self._torrent)
        return None

    @property
    def _mark(self) -> str:
        return f"{self._commit}.json"

    @property
    def _torrent(self) -> str:
        return f"{self._commit}.torrent"


def unfinished_commits(private: Path) -> list[str]:
    """Commits with a download that has begun and not ended, sorted."""
    stems = (name.removesuffix(".json") for name in names_in(private / "unfinished"))
    return sorted(stem for stem in stems if COMMIT.fullmatch(stem))


def _etag(name: str) -> str:
    """The content to which a staged file or a record of that `name` belongs."""
    return name.partition(".")[0]


def _listed(path: Path) -> set[str]:
    """Etags in the manifest recorded at `path`; none if it is damaged."""
    plain = read_json(path)
    files = plain.get("files") if isinstance(plain, dict) else None
    if not isinstance(files, list):
        return set()
    return {str(file.get("sha256") or file.get("git_oid")) for file in files if isinstance(file, dict)}
