"""Make a node's sources from its settings: the engine, and the mirrors with the web seeds of a torrent."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

from p2pmodel.config.settings import MirrorSettings, Settings
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.swarm.engine import Engine, EngineSettings
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.torrents import Metainfo


def engine_of(settings: Settings) -> Engine:
    """The engine of this node; not started."""
    address = ListenAddress.parse(settings.swarm.listen)
    return LibtorrentEngine(
        EngineSettings(
            host=address.host,
            port=address.port,
            upload_limit=settings.swarm.upload_limit,
            download_limit=settings.swarm.download_limit,
            zone=settings.swarm.zone,
        )
    )


class LazyEngine:
    """An engine that starts when it is first needed: a fetch from the mirrors alone opens no port for peers.

    It ends with `stack`; without one it runs already.
    """

    def __init__(self, engine: Engine, stack: AsyncExitStack | None) -> None:
        self._engine = engine
        self._stack = stack
        self._starting = asyncio.Lock()

    async def started(self) -> Engine:
        """The engine, running until the stack closes."""
        async with self._starting:
            if self._stack is not None:
                await self._stack.enter_async_context(self._engine)
                self._stack = None
        return self._engine


def mirrors_with_webseeds(mirrors: Sequence[MirrorSettings], metainfo: Metainfo | None) -> list[MirrorSettings]:
    """The configured mirrors, then those that the torrent lists as web seeds, which get no tokens."""
    found = list(mirrors)
    known = {mirror.endpoint for mirror in found}
    for endpoint in endpoints_of(metainfo) if metainfo else ():
        if endpoint not in known:
            known.add(endpoint)
            found.append(MirrorSettings(name=f"webseed {endpoint}", endpoint=endpoint))
    return found


def endpoints_of(metainfo: Metainfo) -> list[str]:
    """Endpoints of a torrent's web seed URLs `{endpoint}/{repo}/resolve/[{commit}/]`."""
    tail = f"/{metainfo.manifest.repo}/resolve/"
    found = []
    for url in metainfo.webseeds:
        endpoint, separator, _ = url.partition(tail)
        if separator:
            found.append(endpoint)
    return found
