"""What one fetch is made of: its request, its surroundings, and what all fetches of a node share."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest, ManifestFile, Selection
from p2pmodel.core.pace import Pace
from p2pmodel.core.progress.views import RateLimits
from p2pmodel.errors import EntryNotFound
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.backends import FetchOrigin, LazyEngine, OriginRegistry, engine_of
from p2pmodel.node.bandwidth import SharedLimits
from p2pmodel.node.fetch.monitor import FetchMonitor
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.host_stats import node_name
from p2pmodel.node.seed.web_seed import WebSeed
from p2pmodel.node.snapshot_readers import SnapshotReaders
from p2pmodel.store.cache import HubCache
from p2pmodel.store.growing_file import GrowingFiles
from p2pmodel.swarm.engine import Engine


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
    web_seed: WebSeed | None = None
    """Serves complete snapshots to leaseholders over HTTP."""

    def shared(self, limits: RateLimits) -> SharedLimits:
        """Make the swarm and HTTP obey `limits` together."""
        upload = self.web_seed.pace if self.web_seed else None
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
        return LazyEngine(engine, stack, SharedLimits(engine, limits, download=self.pace))

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
