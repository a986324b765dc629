"""Requests to upstream about revisions, how often, and what is served when it does not answer."""

import asyncio
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import AccessDenied, P2PModelError, RepoNotFound, RevisionNotFound, Unavailable
from p2pmodel.node.hub import upstream
from p2pmodel.node.hub.upstream import FAILURE_KEPT, UpstreamRevisions
from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.recording_reporter import RecordingReporter
from tests.support.stored import publish

OLD = snapshot_of({"config.json": b"old"}).manifest
NEW = snapshot_of({"config.json": b"new"}).manifest
MAIN = Reference(RepoId("org/model"))
DAY = 86400.0


class Hub:
    """Stands in for the origin: answers `main` with `says`, and each commit it has."""

    def __init__(self) -> None:
        self.says: Manifest | P2PModelError = OLD
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def manifest(self, ref: Reference) -> Manifest:
        self.asked.append(ref.revision)
        await self.gate.wait()
        if isinstance(self.says, P2PModelError):
            raise self.says
        return next((m for m in (OLD, NEW) if m.commit == ref.revision), self.says)


class Tier:
    def __init__(self, root: Path) -> None:
        self.now = 1e9
        self.passed = 0.0
        self.hub = Hub()
        self.notes: list[str] = []
        self.cache = HubCache(root)
        self.start()

    def start(self) -> None:
        """As a new process on the same cache."""
        self.upstream = UpstreamRevisions(
            HubCache(self.cache.root),
            self.hub,
            RecordingReporter(note=self.notes.append),
            ttl=3 * DAY,
            clock=lambda: self.now,
            timer=lambda: self.passed,
        )

    async def ask(self, ref: Reference = MAIN) -> Manifest:
        return await self.upstream.manifest(ref)


@pytest.fixture
def tier(tmp_path: Path) -> Tier:
    return Tier(tmp_path / "hub")


async def test_concurrent_requests_are_one_upstream_request(tier: Tier) -> None:
    tier.hub.gate.clear()
    asking = [asyncio.create_task(tier.ask()) for _ in range(50)]
    await asyncio.sleep(0.05)
    tier.hub.gate.set()
    assert await asyncio.gather(*asking) == [OLD] * 50
    assert tier.hub.asked == ["main"]


async def test_a_client_that_leaves_does_not_stop_the_upstream_request(tier: Tier) -> None:
    tier.hub.gate.clear()
    first, second = (asyncio.create_task(tier.ask()) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    tier.hub.gate.set()
    assert await second == OLD
    assert tier.hub.asked == ["main"]


async def test_a_commit_is_requested_once(tier: Tier) -> None:
    pinned = Reference(MAIN.repo, OLD.commit)
    for _ in range(3):
        tier.start()
        tier.now += 1000 * DAY
        assert await tier.ask(pinned) == OLD
    assert tier.hub.asked == [OLD.commit]


async def test_a_branch_is_requested_again_after_its_ttl_and_not_before(tier: Tier) -> None:
    await tier.ask()
    tier.hub.says = NEW
    tier.now += 3 * DAY - 1
    tier.start()
    assert await tier.ask() == OLD
    tier.now += 1
    assert await tier.ask() == NEW
    assert await tier.ask() == NEW
    assert tier.hub.asked == ["main", "main"]


async def test_a_clock_that_was_set_back_does_not_make_a_branch_eternal(tier: Tier) -> None:
    await tier.ask()
    tier.hub.says = NEW
    tier.now -= 100 * DAY
    assert await tier.ask() == NEW


async def test_a_clock_that_was_set_back_does_not_keep_a_failure(tier: Tier) -> None:
    tier.hub.says = Unavailable("no mirror can be asked")
    with pytest.raises(Unavailable):
        await tier.ask()
    tier.hub.says = NEW
    tier.now -= DAY / 4
    tier.passed += FAILURE_KEPT
    assert await tier.ask() == NEW


async def test_the_old_is_served_while_upstream_is_down_and_upstream_is_left_alone_a_while(tier: Tier) -> None:
    await tier.ask()
    tier.hub.says = Unavailable("no mirror can be asked")
    tier.now += 4 * DAY
    for _ in range(5):
        assert await tier.ask() == OLD
    assert len(tier.hub.asked) == 2
    assert any("no mirror can be asked" in note for note in tier.notes)
    tier.passed += FAILURE_KEPT
    tier.hub.says = NEW
    assert await tier.ask() == NEW


async def test_the_old_is_served_when_upstream_is_slow_and_the_new_once_it_has_come(
    tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "STALE_AFTER", 0.05)
    await tier.ask()
    tier.hub.says = NEW
    tier.now += 4 * DAY
    tier.hub.gate.clear()
    assert await tier.ask() == OLD
    assert await tier.ask() == OLD
    tier.hub.gate.set()
    assert await tier.ask() == NEW
    assert len(tier.hub.asked) == 2


@pytest.mark.parametrize("error", [RepoNotFound("gone"), RevisionNotFound("gone"), AccessDenied("closed")])
async def test_gone_and_forbidden_are_answers(tier: Tier, error: P2PModelError) -> None:
    await tier.ask()
    tier.hub.says = error
    tier.now += 4 * DAY
    with pytest.raises(type(error)):
        await tier.ask()
    assert await tier.ask(Reference(MAIN.repo, OLD.commit)) == OLD, "a cached commit stays"


async def test_an_absent_revision_is_not_requested_every_time(tier: Tier) -> None:
    tier.hub.says = RepoNotFound("no such thing")
    for _ in range(20):
        with pytest.raises(RepoNotFound, match="no such thing"):
            await tier.ask()
    assert len(tier.hub.asked) == 1
    assert not tier.cache.root.exists(), "names invented by strangers leave no files on the disk"


async def test_an_import_stays_whatever_upstream_answers(tier: Tier) -> None:
    publish(tier.cache, snapshot_of({"config.json": b"old"}))
    for error in (RepoNotFound("never heard of it"), Unavailable("down")):
        tier.hub.says = error
        tier.now += DAY
        assert await tier.ask() == OLD


async def test_a_ref_follows_at_once_if_its_snapshot_is_cached(tier: Tier) -> None:
    publish(tier.cache, snapshot_of({"config.json": b"old"}))
    publish(tier.cache, snapshot_of({"config.json": b"new"}), refs=())
    tier.hub.says = NEW
    await tier.ask()
    assert tier.cache.repo(MAIN.repo).resolve("main") == NEW.commit
