"""Records of the manifests that several mirrors have confirmed: which mirrors, and when."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json
from p2pmodel.store.state.vouched_commits import files_digest


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
