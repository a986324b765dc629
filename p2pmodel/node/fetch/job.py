"""What one fetch is made of: its request, its surroundings, its reports, and what all fetches of a node share."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.rollout.nodes import NodeReport
from p2pmodel.core.content.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.pace import Pace
from p2pmodel.core.progress.progress import Timings
from p2pmodel.core.progress.views import RateLimits
from p2pmodel.errors import EntryNotFound
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.backends import FetchOrigin, LazyEngine, OriginRegistry, engine_of
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.node.fetch.plan import NodeZone
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.host_stats import node_name
from p2pmodel.node.reporter import FileList, PhaseClock, Progress, Reporter, TransferDetails
from p2pmodel.node.rollout.own_state import numbers_of
from p2pmodel.node.rollout.participants import FetchRollout
from p2pmodel.node.snapshot_readers import SnapshotReaders
from p2pmodel.store.cache import HubCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import Engine

if TYPE_CHECKING:
    from p2pmodel.node.fetch.pieces.piece_server import PieceServer
    from p2pmodel.node.seed.web_seed import WebSeed


class FetchMonitor(Reporter):
    """What one fetch reports: passes it on, measures the phases, and keeps the latest progress."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._began = time.monotonic()
        self._clock = PhaseClock("finding")
        self.latest = Progress("finding")
        self.exception = ""
        """Set in all progress from now on, if not empty: `Progress.exception`."""
        self.rollout: FetchRollout | None = None
        """Its part in roll-outs; it receives the progress, too."""

    def progress(self, progress: Progress) -> None:
        """Keep `progress`, and pass it on."""
        if self.exception:
            progress = replace(progress, exception=self.exception)
        self.latest = progress
        self._clock.enter(progress.phase)
        self._reporter.progress(progress)
        if self.rollout is not None:
            self.rollout.progress(progress)

    def note(self, line: str) -> None:
        """Pass `line` on."""
        self._reporter.note(line)

    def files(self, files: FileList) -> None:
        """Pass `files` on."""
        self._reporter.files(files)

    def details(self, details: TransferDetails) -> None:
        """Pass `details` on."""
        self._reporter.details(details)

    def join_rollouts(self, settings: Settings, manifest: Manifest) -> FetchRollout:
        """Report to roll-outs from now on, too."""
        self.rollout = FetchRollout(settings, manifest.repo, manifest.commit, self.note)
        return self.rollout

    def numbers(self) -> NodeReport | None:
        """What goes with a demand for leases."""
        return numbers_of(self.latest)

    def timings(self) -> Timings:
        """The seconds spent so far, by phase."""
        spent = self._clock.seconds
        return Timings(
            total=time.monotonic() - self._began,
            find=spent("finding"),
            download=spent("downloading", "mirroring"),
            verify=spent("checking", "verifying", "publishing"),
        )


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What all fetches of one long-lived node share: a running engine, the cache, and the files that grow."""

    engine: Engine
    cache: HubCache
    growing: GrowingFiles = field(default_factory=GrowingFiles)
    origins: OriginRegistry = field(default_factory=OriginRegistry)
    """The open origins of its fetches, for inspection."""
    pace: Pace = field(default_factory=Pace)
    """Rate limit of what all its fetches together pull from mirrors and seeders over HTTP."""
    readers: SnapshotReaders = field(default_factory=SnapshotReaders)
    """The snapshots that clients of its hub endpoint read."""
    web_seed: "WebSeed | None" = None
    """Serves complete snapshots to leaseholders over HTTP."""
    upload: Pace | None = None
    """Rate limit of all that it sends over HTTP: that of the web seed."""
    pieces: "PieceServer | None" = None
    """Serves the pieces of all its fetches to other zones."""

    def shared(self, limits: RateLimits) -> SharedLimits:
        """Make the swarm and HTTP obey `limits` together."""
        upload = self.web_seed.pace if self.web_seed else self.upload
        return SharedLimits(self.engine, limits, upload=upload, download=self.pace)


@dataclass(frozen=True, slots=True)
class FetchJob:
    """A request and its surroundings.

    `context` is that of the node that runs the fetch; without one, the fetch starts an engine when it needs one.
    """

    request: FetchRequest
    settings: Settings
    monitor: FetchMonitor
    context: NodeContext | None
    cache: HubCache
    growing: GrowingFiles
    mirrors: FetchOrigin
    http: HttpPool
    """The connections to mirrors, seeders and coordinators."""
    pace: Pace
    """Rate limit of what comes over HTTP, from mirrors and seeders."""
    upload: Pace = field(default_factory=Pace)
    """Rate of what a fetch without a node sends over HTTP, to other zones."""

    @property
    def node(self) -> str:
        """The name of this node."""
        return node_name(self.settings.node_name)

    @property
    def serves(self) -> bool:
        """Whether the snapshot is served after the fetch."""
        return bool(self.request.seed_seconds or self.request.seed_ratio)

    @property
    def may_assemble(self) -> bool:
        """Whether this node would take part in an assembly: it needs all files of the snapshot for that."""
        return not (self.settings.offline or self.request.include or self.request.exclude)

    def engine(self, stack: AsyncExitStack) -> LazyEngine:
        """The engine of the node, or one that ends with `stack`."""
        if self.context:
            return LazyEngine(self.context.engine, None)
        engine, swarm = engine_of(self.settings), self.settings.swarm
        limits = RateLimits(swarm.upload_limit, swarm.download_limit)
        upload = self.upload if swarm.zone else None
        return LazyEngine(engine, stack, SharedLimits(engine, limits, upload=upload, download=self.pace))

    @property
    def zone(self) -> NodeZone:
        """The zone of this node."""
        swarm = self.settings.swarm
        upload, server = (self.context.upload, self.context.pieces) if self.context else (None, None)
        return NodeZone(swarm.zone, swarm.piece_port, upload or self.upload, server)

    def selected(self, manifest: Manifest) -> tuple[ManifestFile, ...]:
        """The files to fetch. Raises EntryNotFound if the request selects none."""
        request = self.request
        return selected(manifest, (Selection(request.include, request.exclude), *request.also))


def selected(manifest: Manifest, selections: Sequence[Selection]) -> tuple[ManifestFile, ...]:
    """Files that any of `selections` takes. Raises EntryNotFound if there are none."""
    files = manifest.select_any(selections)
    if not files and (manifest.files or any(selection.include for selection in selections)):
        raise EntryNotFound(
            f"no file of {manifest.repo} matches --include/--exclude", hint="check the patterns with --dry-run"
        )
    return files
