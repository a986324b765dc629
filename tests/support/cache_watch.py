"""Watch a hub cache while it is written: a trusted name never leads to an incomplete file."""

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pmodel.core.content.manifest import git_blob_hasher
from p2pmodel.core.content.names import COMMIT
from tests.support.eventually import PATIENCE

_EVERY = 0.005
_OF_A_CLIENT = ".incomplete"
"""How Hugging Face's own clients mark, among the blobs, what they are still downloading."""
_PROBE_OF_A_CLIENT = "tmp_"
"""How the name of the empty file begins by which they learn the umask, before they move a blob into its place."""


class CacheWatch:
    """Checks one repository's folder in its own thread, in a loop, until the `with` block ends.

    `etags` (path -> etag) describes a complete snapshot. Every blob present must hash to its name,
    every snapshot entry must lead to the blob of its path, and a ref must lead to a whole snapshot. Violations
    are in `wrong`, and fail the block. With `clients` the hub's own clients fill the same
    cache, and set the ref first.
    """

    def __init__(self, folder: Path, etags: Mapping[str, str], *, clients: bool = False, every: float = _EVERY) -> None:
        self.wrong: list[str] = []
        self.blobs: set[str] = set()
        """Names of the blobs seen so far."""
        self._folder = folder
        self._etags = etags
        self._clients = clients
        self._every = every
        self._hashed: set[tuple[str, int, int, int]] = set()
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="cache-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(PATIENCE)
        self.look()
        assert not self.wrong, self.wrong

    def look(self) -> None:
        """Check everything there is, once."""
        with self._looking:
            # In the order opposite to publishing: what a ref leads to was there before the ref.
            refs = self._refs()
            entries = self._entries()
            self._check_blobs()
            self._check_entries(entries)
            for name, content in ({} if self._clients else refs).items():
                self._check_ref(name, content, entries)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.look()

    def _refs(self) -> dict[str, str]:
        root = self._folder / "refs"
        return {str(p.relative_to(root)): p.read_text() for p in _files(root)}

    def _entries(self) -> dict[str, dict[str, Path]]:
        root = self._folder / "snapshots"
        commits = list(root.iterdir()) if root.is_dir() else []
        return {c.name: {p.relative_to(c).as_posix(): p for p in _files(c)} for c in commits}

    def _check_blobs(self) -> None:
        for path in _files(self._folder / "blobs"):
            name = path.name
            if self._clients and (name.endswith(_OF_A_CLIENT) or name.startswith(_PROBE_OF_A_CLIENT)):
                continue
            try:
                with path.open("rb") as blob:
                    status = os.fstat(blob.fileno())
                    state = (path.name, status.st_ino, status.st_size, status.st_mtime_ns)
                    if state not in self._hashed:
                        found = _digest(path.name, blob.read())
                        self._expect(found == path.name, f"blob {path.name} hashes to {found}")
                        self._hashed.add(state)
                        self.blobs.add(path.name)
            except FileNotFoundError:
                self.wrong.append(f"blob {path.name} vanished")

    def _check_entries(self, entries: Mapping[str, Mapping[str, Path]]) -> None:
        for commit, files in entries.items():
            for name, path in files.items():
                etag = self._etags.get(name, "none")
                blob = self._folder / "blobs" / etag
                self._expect(path.is_symlink() and path.resolve() == blob.resolve(), f"{commit}/{name} is not {etag}")
                self._expect(blob.is_file(), f"{commit}/{name} leads nowhere")

    def _check_ref(self, name: str, content: str, entries: Mapping[str, Mapping[str, Path]]) -> None:
        self._expect(COMMIT.fullmatch(content) is not None, f"ref {name} says {content!r}")
        absent = set(self._etags) - set(entries.get(content, ()))
        # The ref was read before the entries.
        self._expect(not absent, f"ref {name} leads to a snapshot without {sorted(absent)}")

    def _expect(self, met: bool, otherwise: str) -> None:
        if not met and otherwise not in self.wrong:
            self.wrong.append(otherwise)


def etags_of(source: Path) -> dict[str, str]:
    """Path -> the name of its blob, for the files of a plain directory; those of `.safetensors` are in LFS."""
    found = {}
    for path in _files(source):
        data = path.read_bytes()
        name = path.relative_to(source).as_posix()
        found[name] = _digest("s" * 64 if name.endswith(".safetensors") else "g" * 40, data)
    return found


def _digest(like: str, data: bytes) -> str:
    """The sha256 of LFS for names of 64 digits, git's blob id for others."""
    if len(like) == 64:
        return hashlib.sha256(data).hexdigest()
    hasher = git_blob_hasher(len(data))
    hasher.update(data)
    return hasher.hexdigest()


def _files(root: Path) -> list[Path]:
    return [Path(parent, name) for parent, _, names in os.walk(root) for name in names]
