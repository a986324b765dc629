"""The manifest of a snapshot: the files of one commit with the hashes of the hub."""

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from p2pmodel.core.content.names import COMMIT, RepoId, printable
from p2pmodel.errors import IntegrityError

MAX_FILES = 200_000
MAX_FILE_SIZE = 1 << 46
MAX_PATH_BYTES = 1024
MAX_SEGMENT_BYTES = 255
MAX_DEPTH = 32

_SPECIAL = re.compile(r"([*?[])")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file: `git_oid` is the git blob id (of the pointer, for LFS), `sha256` is set for LFS files only."""

    path: str
    size: int
    git_oid: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        if not 0 <= self.size <= MAX_FILE_SIZE:
            raise IntegrityError(f"{printable(self.path)} has an impossible size of {self.size} bytes")
        if not COMMIT.fullmatch(self.git_oid) or (self.sha256 is not None and not _SHA256.fullmatch(self.sha256)):
            raise IntegrityError(f"{printable(self.path)} has a malformed hash")

    @property
    def etag(self) -> str:
        """Name of the blob in the cache and ETag of the file at an endpoint: sha256 for LFS, else git blob id."""
        return self.sha256 or self.git_oid

    @property
    def is_lfs(self) -> bool:
        """Whether the hub stores the file in LFS and publishes its sha256."""
        return self.sha256 is not None

    def hasher(self) -> "hashlib._Hash":
        """A hash object; its hexdigest over the whole content must be `etag`."""
        return hashlib.sha256() if self.is_lfs else git_blob_hasher(self.size)


@dataclass(frozen=True, slots=True)
class Selection:
    """Patterns that select files of a snapshot: see `Manifest.select`. An empty selection takes all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def exact_pattern(path: str) -> str:
    """The pattern that selects `path` alone, or what is below a folder `path/`."""
    return _SPECIAL.sub(r"[\1]", path)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot: every file of `repo` at `commit`, in canonical (torrent) order.

    `private`: the hub restricts the repository to some users (private or gated).
    """

    repo: RepoId
    commit: str
    files: tuple[ManifestFile, ...]
    private: bool = False

    def hub_path(self, path: str) -> str:
        """The path of a file below the URL of a hub or mirror: /{repo}/resolve/{commit}/{path}."""
        return f"/{self.repo}/resolve/{self.commit}/{quote(path)}"

    def __post_init__(self) -> None:
        if not COMMIT.fullmatch(self.commit):
            raise IntegrityError(f"'{printable(self.commit)}' is not a commit id")
        if len(self.files) > MAX_FILES:
            raise IntegrityError(f"{self.repo} has {len(self.files)} files, more than {MAX_FILES}")
        object.__setattr__(self, "files", tuple(sorted(self.files, key=lambda f: path_key(f.path))))
        check_distinct([f.path for f in self.files])

    @property
    def total_size(self) -> int:
        """Bytes of all files together."""
        return sum(f.size for f in self.files)

    def file(self, path: str) -> ManifestFile | None:
        """The file at `path`, or None."""
        return next((f for f in self.files if f.path == path), None)

    def select(self, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> tuple[ManifestFile, ...]:
        """Files that match any of `include` (all, when empty) and none of `exclude`.

        Patterns are fnmatch patterns over the path; a pattern that ends in `/` matches everything below it, as in
        huggingface_hub's filter_repo_objects.
        """

        def matches(path: str, patterns: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(path, p + "*" if p.endswith("/") else p) for p in patterns)

        return tuple(
            f for f in self.files if (not include or matches(f.path, include)) and not matches(f.path, exclude)
        )

    def select_any(self, selections: Iterable["Selection"]) -> tuple[ManifestFile, ...]:
        """Files that at least one of `selections` takes."""
        chosen = {f.path for selection in selections for f in self.select(selection.include, selection.exclude)}
        return tuple(f for f in self.files if f.path in chosen)

    def to_dict(self) -> dict[str, Any]:
        """Canonical form of plain values, for a torrent's info dictionary and for JSON."""
        files = []
        for f in self.files:
            entry: dict[str, Any] = {"path": f.path, "size": f.size, "git_oid": f.git_oid}
            if f.sha256 is not None:
                entry["sha256"] = f.sha256
            files.append(entry)
        plain: dict[str, Any] = {"repo": str(self.repo), "commit": self.commit, "files": files}
        if self.private:
            plain["private"] = 1
        return plain

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "Manifest":
        """Inverse of `to_dict`. Raises IntegrityError (InvalidInput for the repository id) for a malformed value."""
        try:
            files = tuple(
                ManifestFile(_text(f["path"]), _whole(f["size"]), _text(f["git_oid"]), _maybe_text(f.get("sha256")))
                for f in plain["files"]
            )
            return cls(
                RepoId(_text(plain["repo"])),
                _text(plain["commit"]),
                files,
                private=bool(plain.get("private")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"the manifest is malformed ({error})") from error


def git_blob_hasher(size: int) -> "hashlib._Hash":
    """sha1 primed with git's blob header for `size` bytes of content."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def lfs_pointer(sha256: str, size: int) -> bytes:
    """The git-lfs pointer file of the content (git-lfs spec v1)."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n" % (sha256.encode(), size)


def lfs_pointer_oid(sha256: str, size: int) -> str:
    """The git blob id of `lfs_pointer`: what the hub reports as `blobId` of an LFS file."""
    pointer = lfs_pointer(sha256, size)
    digest = git_blob_hasher(len(pointer))
    digest.update(pointer)
    return digest.hexdigest()


def path_key(path: str) -> tuple[bytes, ...]:
    """Sort key of canonical order: by raw bytes, directory by directory (BEP 52 file tree order)."""
    return tuple(part.encode() for part in path.split("/"))


def check_path(path: str) -> str:
    """Return `path` if it is a safe relative POSIX path inside a snapshot; else IntegrityError.

    The only check of paths from hubs, torrents and manifests: no absolute path, no `.` or `..`,
    no empty segment, no NUL, control character, backslash or lone surrogate, bounded length and depth.
    """
    segments = path.split("/")
    try:
        sizes = [len(s.encode()) for s in segments]
    except UnicodeEncodeError as error:
        raise IntegrityError(f"the path '{printable(path)}' is not valid UTF-8") from error
    unsafe = (
        any(s in ("", ".", "..") for s in segments)
        or any(ord(c) < 32 or c in "\\\x7f" for c in path)
        or max(sizes) > MAX_SEGMENT_BYTES
        or sum(sizes) + len(segments) > MAX_PATH_BYTES
        or len(segments) > MAX_DEPTH
    )
    if unsafe:
        raise IntegrityError(f"the path '{printable(path)}' is not safe inside a snapshot")
    return path


def check_distinct(paths: Iterable[str]) -> None:
    """Raise IntegrityError if a path occurs twice, or is both a file and a directory."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise IntegrityError(f"the path '{printable(path)}' occurs twice")
        seen.add(path)
    for path in seen:
        parent = path
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in seen:
                raise IntegrityError(f"'{printable(parent)}' is both a file and a directory")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {type(value).__name__}")
    return value


def _maybe_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a whole number, got {type(value).__name__}")
    return value
