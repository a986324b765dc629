"""Unfinished files: in the repository's cache folder, under names that no other program trusts."""

import json
import shutil
from pathlib import Path

from p2pmodel.core.manifest import ManifestFile
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import boot_id, names_in, read_json, write_atomic


class Staging:
    """`.p2pmodel/staging/<commit>/` of one repository, and the torrent by which the commit was last downloaded."""

    def __init__(self, private: Path, commit: str) -> None:
        self._folder = private / "staging" / commit
        self._torrent = private / "torrents" / f"{commit}.torrent"
        self._lock = private / "locks" / f"{commit}.lock"
        self._tmp = private / "tmp"
        self._made = False

    @translated()
    def path_of(self, index: int, file: ManifestFile) -> Path:
        """The staged file of file `index` of the manifest; its folder exists."""
        if not self._made:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._made = True
        return self._folder / f"{index}-{file.etag}.part"

    @translated()
    def names(self) -> frozenset[str]:
        """Names of the staged files and their records."""
        return frozenset(names_in(self._folder))

    @translated()
    def lock_path(self) -> Path:
        """The lock file of this commit's staging area; its folder exists, and `clear` keeps it."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        return self._lock

    @translated()
    def save_have(self, info_hash: str, field: bytes) -> None:
        """Record which pieces of `info_hash` are in the staged files."""
        record = {"boot": boot_id(), "have": field.hex()}
        write_atomic(self._have(info_hash), json.dumps(record).encode(), via=self._tmp, durable=False)

    def load_have(self, info_hash: str) -> bytes | None:
        """The bitfield last saved. None if there is none, or if the machine was restarted since: the pieces may
        not have reached the disk and must be checked."""
        record = read_json(self._have(info_hash))
        if not isinstance(record, dict) or record.get("boot") != boot_id():
            return None
        try:
            return bytes.fromhex(record["have"])
        except (KeyError, TypeError, ValueError):
            return None

    @translated()
    def save_metainfo(self, raw: bytes) -> None:
        """Save the .torrent. `clear` keeps it, so that the snapshot can be seeded without hashing it."""
        write_atomic(self._torrent, raw, via=self._tmp)

    def load_metainfo(self) -> bytes | None:
        """The .torrent last saved for this commit."""
        try:
            return self._torrent.read_bytes()
        except OSError:
            return None

    @translated()
    def clear(self) -> None:
        """Remove the staged files and the piece records."""
        self._made = False
        try:
            shutil.rmtree(self._folder)
        except FileNotFoundError:
            return

    def _have(self, info_hash: str) -> Path:
        return self._folder / f"{info_hash}.have"
