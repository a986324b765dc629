"""The commits that follow lists have led to, so that a node knows them after its restart without asking."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.names import COMMIT, RepoId, check_revision, is_range, transfer_id
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.store.files.disk import read_json


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
