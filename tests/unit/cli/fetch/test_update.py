"""`p2pmodel update`: what is newest stays, what has moved is fetched, and the plan says what that moves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pmodel.store.cache import HubCache
from tests.support.command_line import CommandLine
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.in_thread import in_thread
from tests.support.stored import publish

REPO = "org/model"
OLD = snapshot_of({"config.json": b"{}", "model.safetensors": b"w" * 300_000, "old.txt": b"old"})
NEW = snapshot_of({"config.json": b"{}", "model.safetensors": b"x" * 300_001, "moved.txt": b"old"})
OTHER = snapshot_of({"config.json": b"{}", "README.md": b"other"}, repo="org/other")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with in_thread(FakeHub(NEW)) as running:
        yield running


@pytest.fixture
def cache(cli: CommandLine) -> HubCache:
    return HubCache(cli.hub)


def commit_of(cache: HubCache, name: str = "main") -> str | None:
    return HubCache(cache.root).repo(NEW.manifest.repo).resolve(name)


def test_a_branch_that_has_moved_is_fetched_and_the_older_revision_stays(cli: CommandLine, hub: FakeHub, cache):
    publish(cache, OLD)
    path = Path(cli.ok("update", REPO, "--endpoint", hub.url))
    assert path.name == NEW.commit == commit_of(cache)
    assert (path / "model.safetensors").read_bytes() == NEW.contents["model.safetensors"]
    assert (path.parent / OLD.commit / "old.txt").read_bytes() == b"old"
    assert not hub.asked("config.json"), "the same content was downloaded again"


def test_the_newest_commit_is_left_alone(cli: CommandLine, hub: FakeHub, cache):
    publish(cache, NEW)
    done = cli("update", "--endpoint", hub.url)
    assert done.code == 0
    assert f"{REPO}@main is at the newest commit already ({NEW.commit[:8]})" in done.err
    assert hub.sent == 0
    plain = json.loads(cli.ok("update", REPO, "--endpoint", hub.url, "--json"))
    assert [(each["state"], each["commit"], each["downloaded"]) for each in plain["updates"]] == [
        ("newest", NEW.commit, 0)
    ]


def test_a_dry_run_says_what_each_file_costs_and_moves_nothing(cli: CommandLine, hub: FakeHub, cache):
    publish(cache, OLD)
    done = cli("update", "--dry-run", "--endpoint", hub.url)
    assert done.code == 0
    header, *rows = done.out.splitlines()
    assert header.split() == ["DOWNLOAD", "REUSED", "ADOPTED", "RESUMED", "BEFORE", "AFTER", "FILE"]
    assert [row.split()[-1] for row in rows] == ["model.safetensors", "moved.txt", "total"]
    plain = json.loads(cli.ok("update", "--dry-run", "--json", "--endpoint", hub.url))
    [update] = plain["updates"]
    assert (update["state"], update["before"], update["commit"]) == ("planned", OLD.commit, NEW.commit)
    assert (update["download"], update["adopted"]) == (300_001, 5)
    assert update["files"][0] == {
        "path": "model.safetensors",
        "before": 300_000,
        "size": 300_001,
        "adopted": 0,
        "resumed": 0,
        "reused": 0,
        "download": 300_001,
    }
    assert commit_of(cache) == OLD.commit
    assert hub.sent == 0


def test_files_that_are_here_alone_are_updated_unless_all_are_asked_for(cli: CommandLine, hub: FakeHub, cache):
    publish(cache, OLD, paths=["model.safetensors"])
    path = Path(cli.ok("update", REPO, "--endpoint", hub.url))
    assert [file.name for file in path.iterdir()] == ["model.safetensors"]
    cli.ok("update", REPO, "--endpoint", hub.url, "--all-files")
    assert {file.name for file in path.iterdir()} == set(NEW.contents)


def test_one_name_of_several_can_be_updated(cli: CommandLine, hub: FakeHub, cache):
    publish(cache, OLD, refs=("main", "dev"))
    hub.refs.append("dev")
    cli.ok("update", f"{REPO}@dev", "--endpoint", hub.url)
    assert (commit_of(cache, "dev"), commit_of(cache)) == (NEW.commit, OLD.commit)


def test_what_cannot_be_updated_is_named_and_does_not_stop_the_rest(cli: CommandLine, hub: FakeHub, cache):
    publish(cache, OTHER)
    publish(cache, OLD)
    done = cli("update", "--endpoint", hub.url)
    assert done.code == 8
    assert "1 of 2 names could not be updated" in done.err
    assert f"org/other@main stays at {OTHER.commit[:8]}" in done.err
    assert commit_of(cache) == NEW.commit


def test_without_a_source_the_held_revision_does_not_count_as_the_newest(cli: CommandLine, cache):
    publish(cache, OLD)
    assert "org/model" in cli.refuses(6, "update", REPO, HF_HUB_OFFLINE="1")


def test_calls_that_cannot_be_meant_are_refused(cli: CommandLine, cache):
    publish(cache, OLD)
    assert "never changes" in cli.refuses(2, "update", f"{REPO}@{OLD.commit}")
    assert "'p2pmodel fetch org/nothing' downloads it" in cli.refuses(3, "update", "org/nothing")
    assert "leave --server out" in cli.refuses(2, "update", "--dry-run", "--server", "http://127.0.0.1:9")


def test_an_empty_cache_has_nothing_to_update(cli: CommandLine):
    done = cli("update")
    assert (done.code, done.out) == (0, "")
    assert "no repository in this cache follows a branch" in done.err
