"""The torrent of a transfer that an earlier run of this node has saved."""

from contextlib import suppress

from p2pmodel.errors import P2PModelError
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords
from p2pmodel.swarm.torrents import Metainfo, parse


def saved_torrent(record: TransferRecord, records: TransferRecords, repo: RepoCache) -> Metainfo | None:
    """The saved torrent of the snapshot, which has no voucher yet. One that cannot be used counts as none. Blocks."""
    for raw in (records.torrent(record.id), repo.staging(record.commit).load_metainfo()):
        with suppress(P2PModelError):
            metainfo = parse(raw) if raw else None
            if metainfo and (metainfo.manifest.repo, metainfo.manifest.commit) == (record.repo, record.commit):
                return metainfo
    return None
