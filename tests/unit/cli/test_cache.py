"""`p2pmodel cache` shows the space, pins, and removes what was used longest ago, unless a rule protects it."""

import json
import os
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download

from p2pmodel.node.node_folder import node_folder
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.state.judgements import VouchedCommits
from p2pmodel.store.state.revisions import FollowedCommit, FollowedCommits
from tests.support.command_line import CommandLine
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish

OLD = snapshot_of({"old.bin": b"o" * 1_000_000})
NEW = snapshot_of({"new.bin": b"n" * 1_000_000})


@pytest.fixture
def repo(cli: CommandLine) -> RepoCache:
    """Two snapshots that a mirror has listed; OLD was used earlier."""
    cache = HubCache(cli.hub)
    for snapshot, name, used in ((OLD, "v1", 1000.0), (NEW, "main", 2000.0)):
        manifest = publish(cache, snapshot, refs=(name,))
        VouchedCommits(state(cli) / "vouched").record(manifest, "mirror official", proven=True)
        os.utime(cache.repo(manifest.repo).snapshot(snapshot.commit), (used, used))
    return cache.repo(OLD.manifest.repo)


def state(cli: CommandLine) -> Path:
    return cli.home / "state"


def run(cli: CommandLine, *args: str) -> str:
    return cli.ok(*args, P2PMODEL_STATE_DIR=str(state(cli)))


def test_ls_shows_the_bytes_and_the_pins(cli: CommandLine, repo: RepoCache) -> None:
    assert cli("cache", "pin", "org/model@v1").err == "pinned org/model@v1\n"
    found = json.loads(run(cli, "cache", "ls", "--json"))
    old, new = found["snapshots"]
    assert (old["commit"], old["pins"], old["used"]) == (OLD.commit, ["v1"], 1000.0)
    assert (new["commit"], new["pins"]) == (NEW.commit, [])
    assert old["own"] == old["on_disk"] >= 1_000_000
    assert found["total"] > old["on_disk"] + new["on_disk"]
    assert "v1" in cli("cache", "ls").out


def test_prune_removes_what_was_used_longest_ago(cli: CommandLine, repo: RepoCache) -> None:
    arguments = ("cache", "prune", "--budget", "1.5MB", "--json")
    planned = json.loads(run(cli, *arguments, "--dry-run"))
    assert [each["commit"] for each in planned["removed"]] == [OLD.commit]
    assert planned["kept"] == [{"repo": "org/model", "commit": NEW.commit, "reason": ""}]
    assert repo.commits() == sorted((OLD.commit, NEW.commit))
    env = {"P2PMODEL_STATE_DIR": str(state(cli))}
    assert "--yes" in cli.refuses(2, "cache", "prune", "--budget", "1.5MB", **env)
    [gone] = json.loads(run(cli, *arguments, "--yes"))["removed"]
    assert (gone["commit"], gone["freed"]) == (OLD.commit, planned["removed"][0]["freed"])
    assert repo.commits() == [NEW.commit]


def test_what_the_daemon_follows_stays_while_it_does_not_run(cli: CommandLine, repo: RepoCache) -> None:
    followed = FollowedCommit(OLD.manifest.repo, "v1", OLD.commit)
    FollowedCommits(node_folder(state(cli))).save({"org/model@v1": (followed,), "org/model@main": ()})
    env = {"P2PMODEL_STATE_DIR": str(state(cli)), "P2PMODEL_FOLLOW": '[{"repo": "org/model", "revision": "v1"}]'}
    assert "on a follow list" in cli("cache", "prune", "--unused", "1d", "--dry-run", **env).err
    cli.ok("cache", "prune", "--unused", "1d", "--yes", "--json", **env)
    assert repo.commits() == [OLD.commit]
    run(cli, "cache", "prune", "--unused", "1d", "--yes", "--json")
    assert repo.commits() == []


def test_a_pinned_snapshot_stays_until_it_is_unpinned(cli: CommandLine, repo: RepoCache) -> None:
    cli("cache", "pin", f"org/model@{OLD.commit[:8]}")
    env = {"P2PMODEL_STATE_DIR": str(state(cli))}
    assert "pinned" in cli("cache", "prune", "--unused", "1d", "--dry-run", **env).err
    run(cli, "cache", "prune", "--unused", "1d", "--yes", "--json")
    assert repo.commits() == [OLD.commit]
    assert cli("cache", "unpin", f"org/model@{OLD.commit[:8]}").code == 0
    assert "is not pinned" in cli.refuses(3, "cache", "unpin", f"org/model@{OLD.commit[:8]}")
    run(cli, "cache", "prune", "--unused", "1d", "--yes", "--json")
    assert repo.commits() == []


def test_without_a_mirror_that_has_it_a_snapshot_stays(cli: CommandLine, repo: RepoCache) -> None:
    done = cli("cache", "prune", "--budget", "1", "--yes", P2PMODEL_STATE_DIR=str(cli.home / "other"))
    assert done.code == 0
    assert "above the budget" in done.err
    assert len(repo.commits()) == 2


def test_a_prune_without_a_rule_is_refused(cli: CommandLine, repo: RepoCache) -> None:
    assert "store.budget" in cli.refuses(2, "cache", "prune", "--yes")
    assert "above 0" in cli.refuses(2, "cache", "prune", "--unused", "0", "--yes")


def test_move_puts_a_repository_on_another_disk_where_hub_clients_find_it(
    cli: CommandLine, repo: RepoCache, tmp_path: Path
) -> None:
    there = tmp_path / "big"
    there.mkdir()
    planned = json.loads(run(cli, "cache", "move", "org/model", str(there), "--dry-run", "--json"))
    assert (planned["to"], planned["moved"]) == (str(there / repo.folder.name), False)
    assert not repo.folder.is_symlink()
    assert json.loads(run(cli, "cache", "move", "org/model", str(there), "--json")) == planned | {"moved": True}

    found = scan_cache_dir(cli.hub)
    assert not found.warnings
    assert [(each.repo_id, len(each.revisions)) for each in found.repos] == [("org/model", 2)]
    path = snapshot_download("org/model", revision="v1", cache_dir=cli.hub, local_files_only=True)
    assert Path(path, "old.bin").read_bytes() == b"o" * 1_000_000

    assert str(there) in cli("cache", "ls").err
    pruned = json.loads(run(cli, "cache", "prune", "--budget", "1", "--dry-run", "--json"))
    assert [each["reason"] for each in pruned["kept"]] == ["on another disk", "on another disk"]
    assert "is in" in cli("cache", "move", "org/model", str(there)).err
    assert "moved org/model" in cli("cache", "move", "org/model", "--back").err
    assert not repo.folder.is_symlink()
    assert "name a folder" in cli.refuses(2, "cache", "move", "org/model")
