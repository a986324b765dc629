"""Records of the manifests that were vouched for: by commit, a digest of its files, and the name of the voucher.

They lie in the node's own state folder, not in the cache, which other users may share. A commit never changes, so a
record does not age.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json


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
