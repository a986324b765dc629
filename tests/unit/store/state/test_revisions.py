"""The commits of follow lists outlive a run; a damaged record counts as none."""

from pathlib import Path

import pytest

from p2pmodel.core.content.names import RepoId
from p2pmodel.store.state.revisions import FollowedCommit, FollowedCommits

FOUND = {
    "org/model@main": (FollowedCommit(RepoId("org/model"), "main", "ab" * 20),),
    "org/*@^1.2": (
        FollowedCommit(RepoId("org/a"), "^1.2", "cd" * 20),
        FollowedCommit(RepoId("datasets/org/b"), "^1.2", "ef" * 20),
    ),
}


def test_what_was_saved_last_is_loaded(tmp_path: Path) -> None:
    records = FollowedCommits(tmp_path / "node")
    assert records.load() == {}
    records.save({})
    records.save(FOUND)
    assert FollowedCommits(tmp_path / "node").load() == FOUND


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", '{"a": 1}', '{"a": [["org/m", "main"]]}', '{"a": [["org/m", "main", "x"]]}', '{"a": [[1, 2, 3]]}'],
)
def test_a_damaged_record_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "followed.json").write_text(text)
    assert FollowedCommits(tmp_path).load() == {}
