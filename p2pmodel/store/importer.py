"""Import of a plain directory as a snapshot, with a commit id that depends on its content alone."""

import fnmatch
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.layout import MIB
from p2pmodel.core.content.manifest import Manifest, ManifestFile, check_path, git_blob_hasher, lfs_pointer_oid
from p2pmodel.core.content.names import COMMIT, Reference, printable
from p2pmodel.errors import IntegrityError, InvalidInput, LocalResource
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.files.disk import temporary
from p2pmodel.store.files.file_system import clone
from p2pmodel.store.files.hashing import chunks
from p2pmodel.store.files.parallel import Count, default_jobs, ignore, in_parallel
from p2pmodel.store.files.space import check_space, check_writable
from p2pmodel.store.manifests import linked_blob
from p2pmodel.store.process_locks import LockSearch
from p2pmodel.store.publish import publish_blob, publish_snapshot
from p2pmodel.store.verify import adoptable


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to import: its path in the repository, where its bytes are (links resolved), and their number.

    `etag` is the hub's hash: the name of the blob that the file links to, if the directory is a snapshot in a hub
    cache.
    """

    path: str
    real: Path
    size: int
    etag: str | None = None


@translated()
def scan_directory(source: Path) -> list[SourceFile]:
    """Every file below `source`, sorted by path. Raises InvalidInput or IntegrityError for an unusable entry.

    `.git` and `.cache/huggingface` are skipped at any depth, as in huggingface_hub's upload_folder. Links to files are
    followed if they stay inside `source` or, from a snapshot in a hub cache, lead to that cache's blobs.
    """
    if not source.is_dir():
        raise InvalidInput(f"{printable(str(source))} is not a directory")
    root = source.resolve()
    allowed = [root, *_blob_folders(root)]
    found = [_source_file(root, entry, allowed) for entry in _entries(root)]
    if not found:
        raise InvalidInput(f"no file in {printable(str(source))}")
    return sorted(found, key=lambda f: f.path)


def _blob_folders(root: Path) -> tuple[Path, ...]:
    """The folders that links of a snapshot lead to: its repository's blobs, and the cache's shared store."""
    if root.parent.name != "snapshots" or not COMMIT.fullmatch(root.name):
        return ()
    repo = root.parent.parent
    return (repo / "blobs", repo.parent / "blobs")


def _entries(root: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(root, onerror=fail):
        at = Path(parent)
        folders[:] = [n for n in folders if not _skipped(at, n)]
        for name in folders:
            if (at / name).is_symlink():
                raise InvalidInput(
                    f"{_shown(root, at / name)} is a link to a directory", hint="put the files themselves there"
                )
        yield from (at / name for name in names if not _skipped(at, name))


def _skipped(parent: Path, name: str) -> bool:
    return name == ".git" or (name == "huggingface" and parent.name == ".cache")


def _source_file(root: Path, entry: Path, allowed: list[Path]) -> SourceFile:
    path = check_path(entry.relative_to(root).as_posix())
    etag = None
    real = entry
    if entry.is_symlink():
        real = _follow(root, entry, allowed)
        blob = linked_blob(entry, allowed[1]) if len(allowed) > 1 else None
        etag = blob.name if blob else None
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{printable(path)} is not a regular file", hint="remove it from the directory")
    return SourceFile(path, real, status.st_size, etag)


def _follow(root: Path, entry: Path, allowed: list[Path]) -> Path:
    where = f"{_shown(root, entry)} -> {printable(str(entry.readlink()))}"
    try:
        real = entry.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop of links, in Python before 3.13
        raise InvalidInput(f"broken link {where}", hint="remove it or repair it") from None
    if not any(real.is_relative_to(folder) for folder in allowed):
        raise InvalidInput(f"the link {where} leaves the directory", hint="put the file itself there")
    return real


def _shown(root: Path, entry: Path) -> str:
    return printable(entry.relative_to(root).as_posix())


MAX_GIT_SIZE = 10 * MIB
"""Bytes above which the hub accepts a file only in LFS."""

HUB_PATTERNS: tuple[str, ...] = (
    *("*.7z", "*.arrow", "*.bin", "*.bz2", "*.ckpt", "*.ftz", "*.gz", "*.h5", "*.joblib", "*.lfs.*", "*.mlmodel"),
    *("*.model", "*.msgpack", "*.npy", "*.npz", "*.onnx", "*.ot", "*.parquet", "*.pb", "*.pickle", "*.pkl", "*.pt"),
    *("*.pth", "*.rar", "*.safetensors", "saved_model/**/*", "*.tar.*", "*.tar", "*.tflite", "*.tgz", "*.wasm"),
    *("*.xz", "*.zip", "*.zst", "*tfevents*"),
    # Not in the .gitattributes of a fresh model repository, but the hub's clients add them on the first upload.
    *("*.gguf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.mp3", "*.mp4", "*.wav", "*.pdf"),
)
"""The .gitattributes of a fresh model repository, and the binary kinds that uploads add to it."""


def lfs_patterns(gitattributes: str) -> tuple[str, ...]:
    """The patterns that a .gitattributes file puts under LFS."""
    found = []
    for line in gitattributes.splitlines():
        pattern, *attributes = line.split()[:64] or [""]
        if pattern and not pattern.startswith("#") and "filter=lfs" in attributes:
            found.append(pattern)
    return tuple(found)


def is_lfs(path: str, size: int, patterns: Sequence[str]) -> bool:
    """Whether the hub stores the file at `path` in LFS: it is too large for git, or matches a pattern."""
    return size > MAX_GIT_SIZE or any(_matches(path, pattern) for pattern in patterns)


def _matches(path: str, pattern: str) -> bool:
    """As in .gitignore: a pattern without a slash applies to the last segment, at any depth."""
    if "/" not in pattern:
        return fnmatch.fnmatchcase(path.rpartition("/")[2], pattern)
    # fnmatch's star crosses slashes, so `a/**/*` also needs its form without the middle.
    whole = pattern.removeprefix("/")
    return any(fnmatch.fnmatchcase(path, form) for form in (whole, whole.replace("**/", "")))


@translated()
def import_directory(
    cache: HubCache,
    source: Path,
    ref: Reference,
    *,
    private: bool = False,
    check: Callable[[Manifest], object] = lambda _manifest: None,
    on_bytes: Count = ignore,
    jobs: int | None = None,
) -> Manifest:
    """Copy the files of `source` into `cache` as a snapshot of `ref.repo`, and point `ref.revision` at it.

    A revision of 40 hex digits is the commit id; otherwise the id is `commit_of` the content. Files share their blocks
    with the source if the file system supports it (reflink), else they are copied. They are never hard-linked: the user
    may edit the source. `private` marks the snapshot as not public. `check` may raise before anything is published.
    `on_bytes` gets the bytes read, from threads; an exception it raises stops the import. LFS files are those of the
    hub's rules: by the blob names of a hub snapshot, else by .gitattributes in `source`, else by default patterns.
    """
    repo = cache.repo(ref.repo)
    sources = scan_directory(source)
    check_writable(cache.root)
    with _import_folder(repo) as folder:
        if not _canclone(sources, folder):
            check_space(folder, sum(s.size for s in sources))
        intake = _Intake(repo, folder, _patterns(sources))
        in_parallel(sorted(sources, key=lambda s: -s.size), intake.take, jobs or default_jobs(), on_bytes)
        manifest = _manifest(repo, ref, intake.files, private=private)
        check(manifest)
        for file, staged in intake.staged:
            publish_blob(repo, file, staged)
        publish_snapshot(repo, manifest, manifest.files, [ref.revision])
    return manifest


def commit_of(files: Iterable[ManifestFile]) -> str:
    """The commit id of an imported snapshot, 40 hex digits. It depends on paths and hashes alone, so the same
    content, imported anywhere at any time, gives the same commit and the same torrent."""
    digest = hashlib.sha1(b"p2pmodel import 1\n", usedforsecurity=False)
    for file in sorted(files, key=lambda f: f.path):
        digest.update(f"{file.path}\0{file.git_oid}\0{file.sha256 or ''}\n".encode())
    return digest.hexdigest()


class _Intake:
    """Makes manifest files of source files, and stages those without a blob in the cache. `take` runs in threads."""

    def __init__(self, repo: RepoCache, folder: Path, patterns: Sequence[str]) -> None:
        self.files: list[ManifestFile] = []
        self.staged: list[tuple[ManifestFile, Path]] = []
        self._repo = repo
        self._folder = folder
        self._patterns = patterns
        self._sizes = _blob_sizes(repo)
        self._lock = threading.Lock()

    def take(self, source: SourceFile, count: Count) -> None:
        """Hash `source`, and copy it in the same pass unless the cache probably has it."""
        if source.size in self._sizes:
            file = self._file(source, self._digest(source, None, count))
            if adoptable(self._repo, file) is not None:
                with self._lock:
                    self.files.append(file)
                return
        staged = temporary(self._folder)
        file = self._file(source, self._digest(source, staged, count))
        with self._lock:
            self.files.append(file)
            self.staged.append((file, staged))

    def _lfs(self, source: SourceFile) -> bool:
        return len(source.etag) == 64 if source.etag else is_lfs(source.path, source.size, self._patterns)

    def _digest(self, source: SourceFile, staged: Path | None, count: Count) -> str:
        hasher = hashlib.sha256() if self._lfs(source) else git_blob_hasher(source.size)
        before = source.real.stat()
        for data in _copying(source, staged) if staged else chunks(source.real, 0, source.size):
            hasher.update(data)
            count(len(data))
        after = source.real.stat()
        if (before.st_mtime_ns, source.size) != (after.st_mtime_ns, after.st_size):
            raise LocalResource(
                f"{source.real} changed while it was read", hint="import it when no program writes to it"
            )
        return hasher.hexdigest()

    def _file(self, source: SourceFile, digest: str) -> ManifestFile:
        if source.etag not in (None, digest):
            raise IntegrityError(
                f"{source.path} is damaged: the name of its blob is {source.etag}, its hash is {digest}"
            )
        if self._lfs(source):
            return ManifestFile(source.path, source.size, lfs_pointer_oid(digest, source.size), digest)
        return ManifestFile(source.path, source.size, digest)


def _manifest(repo: RepoCache, ref: Reference, files: Sequence[ManifestFile], *, private: bool) -> Manifest:
    commit = ref.revision if ref.pinned else commit_of(files)
    known = repo.manifest(commit)
    if known and not set(known.files) <= set(files):
        raise InvalidInput(
            f"commit {commit} of {ref.repo} is in the cache with other files", hint="give a branch instead of a commit"
        )
    return Manifest(repo.repo, commit, tuple(files), private=private or (known is not None and known.private))


def _patterns(sources: Sequence[SourceFile]) -> tuple[str, ...]:
    own = next((s for s in sources if s.path == ".gitattributes"), None)
    return lfs_patterns(own.real.read_text(encoding="utf-8", errors="replace")) if own else HUB_PATTERNS


def _blob_sizes(repo: RepoCache) -> frozenset[int]:
    with repo.listed("blobs") as blobs:
        if blobs is None:
            return frozenset()
        with os.scandir(blobs.descriptor) as entries:
            return frozenset(e.stat().st_size for e in entries if e.is_file())


@contextmanager
def _import_folder(repo: RepoCache) -> Iterator[Path]:
    """A folder for this import alone; the remains of an earlier, killed import are removed first."""
    folder = repo.made_private / "import"
    search = LockSearch(folder.with_name("import.lock"))
    lock = search.wait()
    if lock is None:
        raise LocalResource(
            f"another import of {repo.repo} is running: {search.waits_for()}", hint="wait for it to finish"
        )
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def _canclone(sources: Sequence[SourceFile], folder: Path) -> bool:
    largest = max(sources, key=lambda s: s.size)
    probe = temporary(folder)
    try:
        return clone(largest.real, probe)
    finally:
        probe.unlink(missing_ok=True)


def _copying(source: SourceFile, staged: Path) -> Iterator[memoryview]:
    """The content of `source` in chunks, each after it was copied to `staged`."""
    if clone(source.real, staged):
        yield from chunks(staged, 0, source.size)
        return
    with staged.open("wb", buffering=0) as copy:
        for data in chunks(source.real, 0, source.size):
            rest = data
            while rest:
                rest = rest[copy.write(rest) :]
            yield data
