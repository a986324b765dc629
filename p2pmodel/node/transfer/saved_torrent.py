"""The torrent of a transfer that an earlier run of this node has saved, and whether a known one may still be used."""

from contextlib import suppress

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import P2PModelError
from p2pmodel.node.snapshot.evidence.voucher import refused_torrents
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords
from p2pmodel.swarm.torrents import Metainfo, parse


def saved_torrent(
    record: TransferRecord, records: TransferRecords, repo: RepoCache, settings: Settings
) -> Metainfo | None:
    """The saved torrent of the snapshot, which has no voucher yet. One that cannot be used, or has proved wrong, counts
    as none. Blocks."""
    wrong = refused_torrents(settings).of(Reference(record.repo, record.commit))
    for raw in (records.torrent(record.id), repo.staging(record.commit).load_metainfo()):
        with suppress(P2PModelError):
            metainfo = parse(raw) if raw else None
            if metainfo is None or metainfo.info_hash in wrong:
                continue
            if (metainfo.manifest.repo, metainfo.manifest.commit) == (record.repo, record.commit):
                return metainfo
    return None


def is_refused(found: ResolvedTarget | None, settings: Settings) -> bool:
    """Whether the torrent of `found` has proved wrong. Blocks."""
    if found is None or found.metainfo is None:
        return False
    ref = Reference(found.manifest.repo, found.manifest.commit)
    return found.metainfo.info_hash in refused_torrents(settings).of(ref)
