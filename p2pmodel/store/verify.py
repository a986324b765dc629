"""Hashing what the cache holds and comparing it with what the hub vouches for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import sync
from p2pmodel.store.files.hashing import chunks
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What became of each file of a snapshot, in canonical order."""

    ok: tuple[ManifestFile, ...]
    missing: tuple[ManifestFile, ...]
    """No blob, or the snapshot does not show it under the file's path."""
    corrupt: tuple[ManifestFile, ...]
    """The blob's size or hash is wrong."""

    @property
    def whole(self) -> bool:
        """Whether every file is there and right."""
        return not self.missing and not self.corrupt


def verify(repo: RepoCache, manifest: Manifest, *, progress: Count = ignore, jobs: int | None = None) -> VerifyReport:
    """Hash every blob of a snapshot anew, on `jobs` threads, whatever was known about it before.

    What is found is remembered for `is_verified`. `progress` gets the bytes hashed since its last call, from the
    threads; an exception it raises stops the pass.
    """
    state: dict[str, str] = {}

    def work(file: ManifestFile, count: Count) -> None:
        state[file.path] = _judge(repo, manifest.commit, file, count)

    largest_first = sorted(manifest.files, key=lambda f: -f.size)
    in_parallel(largest_first, work, jobs or default_jobs(), progress)

    def having(what: str) -> tuple[ManifestFile, ...]:
        return tuple(f for f in manifest.files if state[f.path] == what)

    return VerifyReport(having("ok"), having("missing"), having("corrupt"))


def _judge(repo: RepoCache, commit: str, file: ManifestFile, count: Count) -> str:
    blob = repo.blob(file)
    if blob is None:
        repo.forget_verified(file)
        return "corrupt" if repo.blob_path(file).exists() else "missing"
    if digest_of(blob, file, count) != file.etag:
        repo.forget_verified(file)
        return "corrupt"
    repo.mark_verified([file])
    shown = repo.snapshot(commit) / file.path
    return "ok" if shown.exists() and shown.samefile(blob) else "missing"


@translated()
def digest_of(path: Path, file: ManifestFile, on_bytes: Callable[[int], None] = ignore) -> str:
    """The hub's hash, in hex, of what is in `path`, taken as the content of `file`; a size that differs shows in it."""
    hasher = file.hasher()
    for data in chunks(path, 0, path.stat().st_size):
        hasher.update(data)
        on_bytes(len(data))
    return hasher.hexdigest()


@translated()
def sealed_digest(path: Path, file: ManifestFile) -> str:
    """`digest_of` what a power cut would leave: the file is brought onto the disk first."""
    sync(path)
    return digest_of(path, file)
