"""Where a node's bytes can come from, made from its settings: the engine, and the mirrors with a torrent's own."""

from collections.abc import Sequence

from p2pmodel.config.settings import MirrorSettings, Settings
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.swarm.engine import Engine, EngineSettings
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.torrents import Metainfo


def engine_of(settings: Settings) -> Engine:
    """The engine this node takes part in swarms with; not started."""
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


def mirrors_with_webseeds(mirrors: Sequence[MirrorSettings], metainfo: Metainfo | None) -> list[MirrorSettings]:
    """The configured mirrors, then those the torrent itself lists as webseeds. Tokens stay with the former."""
    found = list(mirrors)
    known = {mirror.endpoint for mirror in found}
    for endpoint in endpoints_of(metainfo) if metainfo else ():
        if endpoint not in known:
            known.add(endpoint)
            found.append(MirrorSettings(name=f"webseed {endpoint}", endpoint=endpoint))
    return found


def endpoints_of(metainfo: Metainfo) -> list[str]:
    """Endpoints behind a torrent's webseed URLs `{endpoint}/{repo}/resolve/[{commit}/]`."""
    tail = f"/{metainfo.manifest.repo}/resolve/"
    found = []
    for url in metainfo.webseeds:
        endpoint, separator, _ = url.partition(tail)
        if separator:
            found.append(endpoint)
    return found
