"""Torrents that prove wrong while they are used: judged by whole files, dropped, reported, and replaced."""

import asyncio
from contextlib import suppress

from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.assembly.messages import assembly_digest, manifest_text
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.coordinator.client.publishing import report_wrong
from p2pmodel.core import notes
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import LocalResource, P2PModelError, WrongTorrent
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.voucher import refused_torrents
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy
from p2pmodel.node.snapshot.reference_search import torrent_by_now
from p2pmodel.swarm.torrents import Metainfo


class WrongTorrents:
    """Of one fetch."""

    def __init__(self, settings: Settings, reporter: Reporter, http: HttpPool) -> None:
        self._settings = settings
        self._reporter = reporter
        self._http = http
        self._refused = refused_torrents(settings)

    async def judge(self, metainfo: Metainfo, index: int, copy: MirrorCopy) -> None:
        """Download file `index` whole from the mirrors. Raises WrongTorrent if its pieces are not those of the torrent.

        A file that the mirrors do not have right either proves nothing.
        """
        file = metainfo.manifest.files[index]
        line = f"the mirrors' bytes of {file.path} do not fit the torrent: downloading the file whole to find out why"
        self._reporter.note(notes.warning("torrent_disputed", line, file=file.path, info_hash=metainfo.info_hash))
        try:
            tree = await copy.bring(file)
        except P2PModelError as error:
            if isinstance(error, LocalResource):
                raise
            self._reporter.note(
                notes.warning("torrent_disputed", f"{file.path} could not be downloaded whole: {error.what}")
            )
            return
        if tree is not None and tree != metainfo.trees[file.path]:
            raise WrongTorrent(
                f"the torrent's pieces of {file.path} are not those of the file with the hub's hash {file.etag}",
                hint="the torrent is forged, or was built from wrong bytes",
            )

    async def replacement(self, wrong: Metainfo, error: WrongTorrent) -> Metainfo | None:
        """Refuse and report a torrent, and return another one of the same files, if the coordinators have one."""
        manifest = wrong.manifest
        ref, settings = Reference(manifest.repo, manifest.commit), self._settings
        with suppress(LocalResource):
            await asyncio.to_thread(self._refused.add, ref, wrong.info_hash)
        timeout, name = settings.swarm.coordinator_timeout, assembly_digest(manifest_text(manifest))
        await report_wrong(configured(settings), name, wrong.info_hash, timeout, self._http)
        other = await torrent_by_now(manifest, settings, self._reporter, self._http)
        instead = "using another torrent" if other else "downloading from the mirrors alone"
        line = f"{error.what}: the torrent is dropped; {instead}"
        self._reporter.note(notes.warning("torrent_wrong", line, info_hash=wrong.info_hash))
        return other
