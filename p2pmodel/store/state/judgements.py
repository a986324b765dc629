"""Records of what a node found out about snapshots: manifests that were vouched for or that several mirrors confirmed,
torrents that failed the hub's hashes, and models that only a client's own token opened.

They lie in the node's own state folder, not in the cache, which other users may share. A commit never changes, so a
record of one does not age.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json, write_atomic


@dataclass(frozen=True, slots=True)
class VouchedCommit:
    """The files of a commit, as `by` listed them. `proven`: `by` is a mirror, not a coordinator."""

    digest: str
    by: str
    proven: bool

    def fits(self, manifest: Manifest) -> bool:
        """Whether `manifest` has the same paths, sizes and hashes."""
        return self.digest == files_digest(manifest)


class VouchedCommits:
    """The records below `folder`; without a folder there are none. Blocks: call in a thread."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def of(self, repo: RepoId, commit: str) -> VouchedCommit | None:
        """The record of a commit; None if there is none, or it is unreadable."""
        plain = read_json(self._path(self._folder, repo, commit)) if self._folder else None
        if not isinstance(plain, dict) or (plain.get("repo"), plain.get("commit")) != (str(repo), commit):
            return None
        return VouchedCommit(str(plain.get("digest")), str(plain.get("by")), plain.get("proven") is True)

    @translated()
    def record(self, manifest: Manifest, by: str, *, proven: bool) -> None:
        """Record that `by` vouches for `manifest`. A proven record is only replaced by a proven one."""
        known = self.of(manifest.repo, manifest.commit)
        new = VouchedCommit(files_digest(manifest), by, proven)
        if self._folder is None or known == new or (known is not None and known.proven and not proven):
            return
        plain = {"repo": str(manifest.repo), "commit": manifest.commit, **asdict(new)}
        path = self._path(self._folder, manifest.repo, manifest.commit)
        make_folders(self._folder)
        write_private(path, json.dumps(plain).encode())

    @staticmethod
    def _path(folder: Path, repo: RepoId, commit: str) -> Path:
        name = hashlib.sha256(f"{repo}@{commit}".encode()).hexdigest()[:32]
        return folder / f"{name}.json"


def files_digest(manifest: Manifest) -> str:
    """sha256 over the paths, sizes and hashes of the files."""
    listed = [[f.path, f.size, f.git_oid, f.sha256] for f in manifest.files]
    return hashlib.sha256(json.dumps(listed, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class ConfirmedCommit:
    """The mirrors that listed the same files, and when they were asked (seconds since 1970)."""

    mirrors: tuple[str, ...]
    time: float


class ConfirmedCommits:
    """The records below `folder`; without a folder there are none. Blocks: call in a thread."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def of(self, manifest: Manifest) -> ConfirmedCommit | None:
        """The record of exactly the files of `manifest`; None if there is none, or it is unreadable."""
        plain = read_json(self._path(self._folder, manifest)) if self._folder else None
        try:
            if plain is None or plain["digest"] != files_digest(manifest):
                return None
            return ConfirmedCommit(tuple(map(str, plain["mirrors"])), float(plain["time"]))
        except (LookupError, TypeError, ValueError):
            return None

    @translated()
    def record(self, manifest: Manifest, confirmed: ConfirmedCommit) -> None:
        """Keep a confirmation."""
        if self._folder is not None:
            plain = {"digest": files_digest(manifest), "mirrors": confirmed.mirrors, "time": confirmed.time}
            make_folders(self._folder)
            write_private(self._path(self._folder, manifest), json.dumps(plain).encode())

    @staticmethod
    def _path(folder: Path, manifest: Manifest) -> Path:
        name = hashlib.sha256(f"{manifest.repo}@{manifest.commit}".encode()).hexdigest()[:32]
        return folder / f"{name}.json"


REFUSED_FOR = 24 * 3600.0
"""Seconds for which a torrent is refused."""
MAX_REFUSED = 256
"""Torrents that are remembered; the oldest are forgotten."""


class RefusedTorrents:
    """Info-hashes in the file `path`; without one, in memory. Blocks: call in a thread."""

    def __init__(self, path: Path | None, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._own: list[tuple[str, str, float]] = []

    def of(self, ref: Reference) -> frozenset[str]:
        """The refused torrents of a commit."""
        return frozenset(info_hash for commit, info_hash, _ in self._load() if commit == str(ref))

    @translated()
    def add(self, ref: Reference, info_hash: str) -> None:
        """Refuse a torrent of the commit `ref` from now on."""
        others = [entry for entry in self._load() if entry[:2] != (str(ref), info_hash)]
        self._own = [*others, (str(ref), info_hash, self._clock())][-MAX_REFUSED:]
        if self._path is not None:
            make_folders(self._path.parent)
            write_private(self._path, json.dumps(self._own).encode())

    def _load(self) -> list[tuple[str, str, float]]:
        plain = read_json(self._path) if self._path is not None else None
        entries = plain if isinstance(plain, list) else self._own
        now, kept = self._clock(), []
        for entry in entries[-MAX_REFUSED:]:
            try:
                commit, info_hash, at = str(entry[0]), str(entry[1]), float(entry[2])
            except (TypeError, ValueError, IndexError, KeyError):
                continue
            # A time in the future is that of a clock that was set back since.
            if abs(now - at) < REFUSED_FOR:
                kept.append((commit, info_hash, at))
        return kept


class WithheldModels:
    """Their names, in the file `path`, in lower case: the hub takes all spellings for one. Tokens are not recorded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        listed = read_json(path)
        self._names: set[str] = (
            {name.lower() for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
        )

    def covers(self, repo: RepoId) -> bool:
        """Whether `repo` is withheld."""
        return repo.folded in self._names

    def add(self, repo: RepoId) -> None:
        """Withhold `repo`. Durable on return. Blocks."""
        if not self.covers(repo):
            self._write(self._names | {repo.folded})

    def drop(self, repo: RepoId) -> None:
        """Stop withholding `repo`: the node itself may read it now. Blocks."""
        if self.covers(repo):
            self._write(self._names - {repo.folded})

    @translated()
    def _write(self, names: set[str]) -> None:
        write_atomic(self._path, json.dumps(sorted(names)).encode(), via=self._path.parent)
        self._names = names
