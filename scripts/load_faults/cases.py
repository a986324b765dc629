"""The faults: what happens when a load has come to a boundary, and how it may end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from p2pmodel.errors import P2PModelError
from p2pmodel.loading.model import LoadedModel
from scripts.load_faults.model import Boundary, TinyModel
from scripts.load_faults.rig import NODE, Node, Rig, SmallDisk
from scripts.load_faults.sources import StoppingHub, Torrents
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import HubSnapshot

FIRST, SECOND = "127.0.0.63", "127.0.0.64"
REACHED_SECONDS = 30.0
GONE = "unavailable"
"""The code where no source is left."""


@dataclass(frozen=True)
class Site:
    """What a case has: the model in both layouts, the torrent of the second one, and mirrors that are always right."""

    rig: Rig
    sharded: TinyModel
    single: TinyModel
    torrents: Torrents
    honest: FakeHub
    honest_single: FakeHub


@dataclass(frozen=True)
class Fault:
    """`name` says what happens. `run` loads with it; `resume` loads again, with sources that are right.

    `codes`: errors that it may end with; empty: it must recover. `recovers`: it may also end with the model. `layout`:
    which model it is about. `keeps`: what the cache had must not come again.
    """

    name: str
    layout: str
    run: Callable[[Site, Boundary, Node], Awaitable[LoadedModel]]
    resume: Callable[[Site, Node], Awaitable[LoadedModel]]
    codes: frozenset[str] = frozenset()
    recovers: bool = False
    on_small_disk: bool = False
    keeps: bool = True

    def of(self, site: Site) -> TinyModel:
        """The model that it is about."""
        return site.sharded if self.layout == "mirror" else site.single


class Stopped(P2PModelError):
    """Ctrl-C, as `p2pmodel` translates it."""

    code = "interrupted"


# -- from mirrors, at each byte where a tensor ends -------------------------------------------------------------


@asynccontextmanager
async def _stopping(
    site: Site, boundary: Boundary, node: Node, *more: str, lies: bool = False
) -> AsyncIterator[StoppingHub]:
    snapshot = site.sharded.wrong(boundary) if lies else site.sharded.snapshot
    async with StoppingHub(snapshot, boundary, host=FIRST) as hub:
        node.mirrors = (hub.url, *more)
        yield hub


async def _with(node: Node, hub: StoppingHub, fault: Callable[["asyncio.Future[LoadedModel]"], object]) -> LoadedModel:
    """Load; `fault` happens once the hub has sent all up to the boundary, and the tensors before it are loaded."""
    loading = asyncio.ensure_future(node.load())
    reaching = asyncio.ensure_future(hub.reached.wait())
    try:
        await asyncio.wait({loading, reaching}, timeout=REACHED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            reaching.result()
            await node.heard.stopped()
            fault(loading)
        try:
            return await loading
        except asyncio.CancelledError:
            raise Stopped("interrupted") from None
    finally:
        reaching.cancel()
        loading.cancel()
        await asyncio.wait({reaching, loading})


async def _mirror_dies(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    async with _stopping(site, boundary, node) as hub:
        return await _with(node, hub, lambda _loading: hub.die())


async def _mirror_dies_beside(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    async with _stopping(site, boundary, node, site.honest.url) as hub:
        return await _with(node, hub, lambda _loading: hub.die())


async def _mirror_lies(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    async with _stopping(site, boundary, node, lies=True) as liar:
        return await _with(node, liar, lambda _loading: liar.go_on())


async def _mirror_lies_beside(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    async with _stopping(site, boundary, node, site.honest.url, lies=True) as liar:
        return await _with(node, liar, lambda _loading: liar.go_on())


async def _mirror_ctrl_c(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    async with _stopping(site, boundary, node) as hub:
        return await _with(node, hub, lambda loading: loading.cancel())


async def _mirror_full_disk(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    disk = _disk(site)
    async with _stopping(site, boundary, node) as hub:

        def fill(_loading: "asyncio.Future[LoadedModel]") -> None:
            disk.fill()
            hub.go_on()

        return await _with(node, hub, fill)


async def _from_honest_mirror(site: Site, node: Node) -> LoadedModel:
    if site.rig.disk is not None:
        site.rig.disk.free()
    node.mirrors = (site.honest.url,)
    return await node.load()


# -- from peers, after each piece, which is a tensor ------------------------------------------------------------


async def _to_boundary(
    site: Site, boundary: Boundary, node: Node, fault: Callable[[AsyncExitStack], Awaitable[None]]
) -> LoadedModel:
    """Load from a peer that has what precedes the boundary; then `fault`, which may close the peer."""
    node.target = str(site.torrents.path)
    have = site.torrents.up_to(boundary)
    async with AsyncExitStack() as peers:
        address = await peers.enter_async_context(site.torrents.peer(FIRST, have))
        node.peers = (address,)
        loading = asyncio.ensure_future(node.load())
        disturbing = asyncio.ensure_future(_disturbed(site, node, have, peers, fault))
        try:
            await asyncio.wait({loading, disturbing}, timeout=REACHED_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if disturbing.done():
                disturbing.result()
            return await loading
        finally:
            for task in (loading, disturbing):
                task.cancel()
            await asyncio.wait({loading, disturbing})


async def _disturbed(
    site: Site,
    node: Node,
    have: frozenset[int],
    peers: AsyncExitStack,
    fault: Callable[[AsyncExitStack], Awaitable[None]],
) -> None:
    await node.heard.received(site.torrents.size_of(have))
    await node.heard.stopped()
    await fault(peers)


async def _peer_dies(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    return await _to_boundary(site, boundary, node, lambda peers: peers.aclose())


async def _peer_dies_beside(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    async with AsyncExitStack() as others:

        async def replace(peers: AsyncExitStack) -> None:
            await others.enter_async_context(site.torrents.peer(SECOND, site.torrents.all, to=(NODE, node.port)))
            await peers.aclose()

        return await _to_boundary(site, boundary, node, replace)


async def _corrupt_peer(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    return await _from_corrupt_peer(site, boundary, node, alone=True)


async def _corrupt_peer_beside(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    return await _from_corrupt_peer(site, boundary, node, alone=False)


async def _from_corrupt_peer(site: Site, boundary: Boundary, node: Node, *, alone: bool) -> LoadedModel:
    node.target = str(site.torrents.path)
    wrong: HubSnapshot = site.single.wrong(boundary)
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(site.torrents.peer(FIRST, site.torrents.all, of=wrong))]
        if not alone:
            peers.append(await stack.enter_async_context(site.torrents.peer(SECOND, site.torrents.all)))
        node.peers = tuple(peers)
        return await node.load()


async def _swarm_ctrl_c(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    loading: asyncio.Future[LoadedModel] | None = None

    async def cancel(_peers: AsyncExitStack) -> None:
        assert loading is not None
        loading.cancel()

    loading = asyncio.ensure_future(_to_boundary(site, boundary, node, cancel))
    try:
        return await loading
    except asyncio.CancelledError:
        raise Stopped("interrupted") from None


async def _swarm_full_disk(site: Site, boundary: Boundary, node: Node) -> LoadedModel:
    disk = _disk(site)
    async with AsyncExitStack() as others:

        async def fill(_peers: AsyncExitStack) -> None:
            disk.fill()
            await others.enter_async_context(site.torrents.peer(SECOND, site.torrents.all, to=(NODE, node.port)))

        return await _to_boundary(site, boundary, node, fill)


async def _from_honest_peer(site: Site, node: Node) -> LoadedModel:
    if site.rig.disk is not None:
        site.rig.disk.free()
    node.target = str(site.torrents.path)
    async with site.torrents.peer(SECOND, site.torrents.all) as address:
        node.peers = (address,)
        return await node.load()


def _disk(site: Site) -> SmallDisk:
    assert site.rig.disk is not None
    return site.rig.disk


_GONE = frozenset({GONE})
_WRONG = frozenset({GONE, "integrity", "wrong_bytes"})
_FULL = frozenset({"no_space"})
_STOPPED = frozenset({"interrupted"})
FAULTS = (
    Fault("mirror dies", "mirror", _mirror_dies, _from_honest_mirror, _GONE, recovers=True),
    Fault("mirror dies, another is there", "mirror", _mirror_dies_beside, _from_honest_mirror),
    Fault("mirror lies", "mirror", _mirror_lies, _from_honest_mirror, _WRONG, keeps=False),
    Fault("mirror lies, another is right", "mirror", _mirror_lies_beside, _from_honest_mirror),
    Fault("full disk, from a mirror", "mirror", _mirror_full_disk, _from_honest_mirror, _FULL, recovers=True,
          on_small_disk=True),
    Fault("Ctrl-C, from a mirror", "mirror", _mirror_ctrl_c, _from_honest_mirror, _STOPPED, recovers=True),
    Fault("peer dies", "swarm", _peer_dies, _from_honest_peer, _GONE, recovers=True),
    Fault("peer dies, another comes", "swarm", _peer_dies_beside, _from_honest_peer),
    Fault("corrupt peer", "swarm", _corrupt_peer, _from_honest_peer, _GONE),
    Fault("corrupt peer, another is right", "swarm", _corrupt_peer_beside, _from_honest_peer),
    Fault("full disk, from a peer", "swarm", _swarm_full_disk, _from_honest_peer, _FULL, recovers=True,
          on_small_disk=True),
    Fault("Ctrl-C, from a peer", "swarm", _swarm_ctrl_c, _from_honest_peer, _STOPPED, recovers=True),
)  # fmt: skip
"""`recovers` where a boundary is the end: all bytes are there when the fault comes."""
