"""A node's use cases over real files and the in-memory swarm."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.core.pace import Pace
from p2pmodel.node.fetch.download import Download
from p2pmodel.node.fetch.plan import DownloadPlan
from p2pmodel.node.reporter import Progress, Reporter
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import AddTorrent, EngineSettings
from p2pmodel.swarm.memory.engine import MemoryEngine, MemoryNetwork
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.swarm.torrents import build, layout_of, parse
from tests.support.hub_snapshot import HubSnapshot, snapshot_of
from tests.support.recording_reporter import RecordingReporter
from tests.support.torrent_files import trees_of

CONTENTS: Mapping[str, bytes] = {
    "config.json": b"{}",
    "empty.txt": b"",
    "copy.safetensors": bytes(range(256)) * 3000,
    "model.safetensors": bytes(range(256)) * 3000,
    "nested/other.bin": b"other" * 60_000,
}
LEASES_DELIVER = 60.0
"""Seconds in which leases deliver something, also on a slow machine, in tests of leases."""
TRACKER = "http://tracker.test/announce"


def without_mirrors(**settings: Any) -> SwarmSettings:
    """Settings of a peer that reaches no mirror: a coordinator's word, and any tracker, are enough."""
    return SwarmSettings(trust="coordinator", foreign_trackers="any", **settings)


@dataclass
class Heard:
    """A Reporter that records what it receives."""

    notes: list[str] = field(default_factory=list)
    latest: Progress | None = None
    most_from_peers: int = 0
    """Bytes that came from peers before there was a torrent."""

    @property
    def reporter(self) -> Reporter:
        return RecordingReporter(self._see, self.notes.append)

    def _see(self, progress: Progress) -> None:
        self.latest = progress
        if progress.phase == "mirroring":
            self.most_from_peers = max(self.most_from_peers, progress.from_peers)


class Swarm:
    """A snapshot, its torrent, and a network of in-memory engines."""

    def __init__(self, root: Path, snapshot: HubSnapshot | None = None) -> None:
        self.root = root
        self.snapshot = snapshot or snapshot_of(CONTENTS)
        self.network = MemoryNetwork()
        self.heard = Heard()
        contents = {path: bytes(data) for path, data in self.snapshot.contents.items()}
        manifest = self.snapshot.manifest
        layout = layout_of(manifest)
        raw = build(manifest, trees_of(contents, layout.piece_length), trackers=[TRACKER])
        self.metainfo: Metainfo = parse(raw)

    def engine(self, host: str = "127.0.0.1", *, zone: str = "") -> MemoryEngine:
        return MemoryEngine(self.network, EngineSettings(host=host, zone=zone))

    async def seed(
        self,
        engine: MemoryEngine,
        contents: Mapping[str, bytes] | None = None,
        *,
        trackers: tuple[str, ...] = (TRACKER,),
    ) -> None:
        """Let `engine` serve the snapshot, or `contents` in its place."""
        folder = self.root / f"seed-{engine.address[0]}"
        files = {}
        for index, file in zip(self.metainfo.file_indexes, self.metainfo.manifest.files, strict=True):
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes((contents or self.snapshot.contents)[file.path]))
            files[index] = str(path)
        have = frozenset(range(self.metainfo.layout.piece_count))
        await engine.add(AddTorrent(self.metainfo.raw, folder, files, have, trackers=trackers))

    def cache(self, node: str = "peer") -> HubCache:
        return HubCache(self.root / node)

    def transfer(
        self,
        engine: MemoryEngine,
        *,
        cache: HubCache | None = None,
        origin: Origin | None = None,
        files: frozenset[int] | None = None,
        peer_timeout: float | None = None,
        stall_timeout: float = 1.0,
        coordinators: tuple[str, ...] = (),
        pace: Pace | None = None,
        growing: GrowingFiles | None = None,
    ) -> Download:
        if peer_timeout is None:
            peer_timeout = LEASES_DELIVER if coordinators else 0.1
        plan = DownloadPlan(
            metainfo=self.metainfo,
            files=frozenset(range(len(self.metainfo.manifest.files))) if files is None else files,
            refs=("main",),
            trackers=(TRACKER,),
            peer_timeout=peer_timeout,
            stall_timeout=stall_timeout,
            coordinators=tuple(map(Coordinator, coordinators)),
            coordinator_timeout=1.0,
            pace=pace,
        )
        repo = (cache or self.cache()).repo(self.metainfo.manifest.repo)
        return Download(plan, engine=engine, repo=repo, origin=origin, reporter=self.heard.reporter, growing=growing)

    def published(self, cache: HubCache | None = None) -> dict[str, bytes]:
        """The contents of the snapshot `main` in the cache, by path; empty without one."""
        repo = (cache or self.cache()).repo(self.metainfo.manifest.repo)
        commit = repo.resolve("main")
        if commit is None:
            return {}
        folder = repo.snapshot(commit)
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


async def assert_nothing_runs() -> None:
    """No task but the caller's is left."""
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, left
