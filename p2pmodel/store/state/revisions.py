"""Records of the commits that names led to: upstream's revisions, and follow lists.

`.p2pmodel/revisions/<sha256 of the name>.json` = {"revision", "commit", "checked"}: branch names may contain characters
that file names cannot. So a mirror need not request upstream's revisions every time. A commit needs no record: its
manifest never changes. The commits of follow lists are known after a restart without asking.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import COMMIT, RepoId, check_revision, is_commit, is_range, transfer_id
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.disk import read_json, write_atomic
from p2pmodel.store.manifests import record_manifest
from p2pmodel.store.publish import point_ref


@dataclass(frozen=True, slots=True)
class KnownRevision:
    """`revision` was `commit` upstream at `checked`, in seconds since 1970."""

    revision: str
    commit: str
    checked: float


def known_revision(repo: RepoCache, revision: str) -> KnownRevision | None:
    """The record of `revision`; None if there is none, or it is unreadable."""
    found = (_read(_path(place, revision)) for place in repo.private_places)
    return next((known for known in found if known is not None and known.revision == revision), None)


@translated()
def revisions_at(repo: RepoCache, commit: str) -> list[str]:
    """Revisions that point at `commit` according to the records; sorted."""
    found: dict[str, KnownRevision] = {}
    for place in reversed(repo.private_places):
        records = map(_read, (place / "revisions").glob("*.json"))
        found |= {known.revision: known for known in records if known is not None}
    return sorted(known.revision for known in found.values() if known.commit == commit)


@translated()
def record_revision(repo: RepoCache, manifest: Manifest, revision: str, checked: float) -> None:
    """Record that upstream answered at `checked` that `revision` is the commit of `manifest`.

    The ref of the cache follows at once if its snapshot exists, else with the snapshot's first file.
    """
    if not repo.listed_by_a_hub(manifest.commit):
        record_manifest(repo.made_private, manifest)
    if is_commit(revision):
        return
    record = {"revision": revision, "commit": manifest.commit, "checked": checked}
    write_atomic(_path(repo.made_private, revision), json.dumps(record).encode(), via=repo.tmp)
    if repo.writable and repo.has_snapshot(manifest.commit):
        point_ref(repo, revision, manifest.commit)


def _path(private: Path, revision: str) -> Path:
    return private / "revisions" / f"{hashlib.sha256(revision.encode()).hexdigest()}.json"


def _read(path: Path) -> KnownRevision | None:
    record = read_json(path)
    if not isinstance(record, dict):
        return None
    try:
        known = KnownRevision(str(record["revision"]), str(record["commit"]), float(record["checked"]))
    except (KeyError, TypeError, ValueError):
        return None
    return known if COMMIT.fullmatch(known.commit) else None


@dataclass(frozen=True, slots=True)
class FollowedCommit:
    """The commit that a revision of a repository led to."""

    repo: RepoId
    revision: str
    commit: str

    @property
    def transfer(self) -> str:
        """The id of its transfer."""
        return transfer_id(self.repo, self.commit)


class FollowedCommits:
    """The file `followed.json` in `folder`. Blocks: call in a thread."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "followed.json"

    def load(self) -> dict[str, tuple[FollowedCommit, ...]]:
        """The commits by the name of the list. What is damaged counts as unknown: it is looked up again."""
        plain = read_json(self._path)
        try:
            return {str(name): tuple(_followed(each) for each in listed) for name, listed in (plain or {}).items()}
        except (InvalidInput, KeyError, TypeError, ValueError, AttributeError):
            return {}

    @translated()
    def save(self, by_list: Mapping[str, tuple[FollowedCommit, ...]]) -> None:
        """Replace them all. Durable on return."""
        plain = {
            name: [[str(each.repo), each.revision, each.commit] for each in found] for name, found in by_list.items()
        }
        make_folders(self._path.parent)
        write_private(self._path, json.dumps(plain).encode())


def _followed(plain: Any) -> FollowedCommit:
    repo, revision, commit = plain
    if not COMMIT.fullmatch(commit):
        raise ValueError(commit)
    return FollowedCommit(RepoId(repo), str(revision) if is_range(revision) else check_revision(revision), commit)
