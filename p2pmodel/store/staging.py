"""Unfinished files: in the repository's cache folder, under names that no other program trusts."""

import json
import shutil
from contextlib import suppress
from pathlib import Path

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.files.private_files import remove_leftovers
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import boot_id, copy_sparse, names_in, read_json, temporary, write_atomic
from p2pmodel.store.files.regular import read_regular
from p2pmodel.store.files.space import allocated
from p2pmodel.store.private_folder import PrivateFolder


class Staging:
    """`.p2pmodel/staging/<commit>/` of one repository, and the torrent by which the commit was last downloaded."""

    def __init__(self, private: PrivateFolder, commit: str) -> None:
        self._private = private
        self._commit = commit

    @translated()
    def path_of(self, index: int, file: ManifestFile) -> Path:
        """The staged file of file `index` of the manifest; its folder exists.

        The path leads through the open private folder: it is right for as long as the RepoCache lives.
        """
        return self._made("staging", self._commit) / f"{index}-{file.etag}.part"

    @translated()
    def names(self) -> frozenset[str]:
        """Names of the staged files and their records."""
        return frozenset(names_in(self._folder))

    @translated()
    def size(self) -> int:
        """Bytes that the staged files occupy."""
        return sum(allocated(self._folder / name) for name in names_in(self._folder))

    @translated()
    def lock_path(self) -> Path:
        """The lock file of this commit's staging area; its folder exists, and `clear` keeps it.

        What killed processes left in the folder for temporary files is removed.
        """
        remove_leftovers(self._private.tmp, "")
        return self._made("locks") / f"{self._commit}.lock"

    @translated()
    def detach(self) -> None:
        """Replace each staged file by a copy: a process that was passed over may still write to the open file."""
        for name in names_in(self._folder):
            if name.endswith(".part"):
                copy_sparse(self._folder / name, fresh := temporary(self._private.tmp))
                fresh.replace(self._folder / name)

    @translated()
    def save_have(self, info_hash: str, field: bytes) -> None:
        """Record which pieces of `info_hash` are in the staged files."""
        record = {"boot": boot_id(), "have": field.hex()}
        folder = self._made("staging", self._commit)
        write_atomic(folder / _have(info_hash), json.dumps(record).encode(), via=self._private.tmp, durable=False)

    def load_have(self, info_hash: str) -> bytes | None:
        """The bitfield last saved. None if there is none, or if the machine was restarted since: the pieces may
        not have reached the disk and must be checked."""
        record = read_json(self._folder / _have(info_hash))
        if not isinstance(record, dict) or record.get("boot") != boot_id():
            return None
        try:
            return bytes.fromhex(record["have"])
        except (KeyError, TypeError, ValueError):
            return None

    @translated()
    def save_metainfo(self, raw: bytes) -> None:
        """Save the .torrent. `clear` keeps it, so that the snapshot can be seeded without hashing it."""
        write_atomic(self._made("torrents") / self._torrent, raw, via=self._private.tmp)

    def load_metainfo(self) -> bytes | None:
        """The .torrent last saved for this commit."""
        for place in self._private.places:
            with suppress(OSError):
                return read_regular(place / "torrents" / self._torrent)
        return None

    @translated()
    def clear(self) -> None:
        """Remove the staged files and the piece records, unless the cache cannot be written to."""
        if not self._private.writable:
            return
        with suppress(FileNotFoundError):
            shutil.rmtree(self._folder)

    @property
    def _folder(self) -> Path:
        return self._private.existing / "staging" / self._commit

    @property
    def _torrent(self) -> str:
        return f"{self._commit}.torrent"

    def _made(self, *names: str) -> Path:
        folder = self._private.made.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _have(info_hash: str) -> str:
    return f"{info_hash}.have"
