"""From libtorrent's alerts to frozen notices, the moment they are popped.

An alert is a pointer that dies at the next pop, so nothing of it may be kept: `notices_of` copies what we use, and
`AlertPump` calls it from the event loop when the session writes to its alert fd. Nothing polls.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any

import libtorrent as lt

from p2pmodel.swarm.engine import (
    DiskFailed,
    Event,
    PeerBanned,
    PieceRejected,
    PieceVerified,
    TrackerAnswered,
    TrackerFailed,
)

Handle = lt.torrent_handle

_NO_SPACE = {28, 122}
"""ENOSPC and EDQUOT, as libtorrent's system category counts them."""

ALERT_MASK = (
    lt.alert_category.error
    | lt.alert_category.peer
    | lt.alert_category.status
    | lt.alert_category.storage
    | lt.alert_category.tracker
    | lt.alert_category.piece_progress
)


@dataclass(frozen=True, slots=True)
class Listening:
    """The session accepts TCP connections at `address`:`port`."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class ListenFailed:
    """The session could not listen; `code` is the errno."""

    address: str
    port: int
    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """A torrent's counters at one moment; `have` counts pieces that passed, written or not."""

    have: frozenset[int]
    peers: int
    seeds: int
    downloaded: int
    uploaded: int
    wasted: int
    download_rate: int
    upload_rate: int


@dataclass(frozen=True, slots=True)
class Available:
    """Per piece, how many connected peers have it; empty for a seed."""

    peers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Renamed:
    """A file has moved; all that was verified before is in it."""

    file: int


@dataclass(frozen=True, slots=True)
class RenameFailed:
    """A file could not be moved."""

    file: int
    message: str


@dataclass(frozen=True, slots=True)
class Flushed:
    """Queued writes of a torrent have been written."""


@dataclass(frozen=True, slots=True)
class Described:
    """A magnet's info dictionary has arrived, and matches the info-hash."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The torrent as .torrent bytes, or None while its metadata or piece layers are incomplete."""

    metainfo: bytes | None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A tracker is being told that we leave; TrackerAnswered or TrackerFailed follows."""

    url: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The torrent has taken in what we said we have."""


@dataclass(frozen=True, slots=True)
class Echo:
    """Answer to `post_trackers`, asked for its place in the line alone: everything before it has been told."""


@dataclass(frozen=True, slots=True)
class TorrentRemoved:
    """The session has forgotten the torrent."""


Notice = (
    Event
    | Listening
    | ListenFailed
    | Ticked
    | Available
    | Renamed
    | RenameFailed
    | Flushed
    | Described
    | Exported
    | Leaving
    | Checked
    | Echo
    | TorrentRemoved
)


def _ticked(status: Any) -> Ticked:
    return Ticked(
        have=frozenset(compress(range(len(status.pieces)), status.pieces)),
        peers=status.num_peers,
        seeds=status.num_seeds,
        downloaded=status.total_payload_download,
        uploaded=status.total_payload_upload,
        wasted=status.total_failed_bytes + status.total_redundant_bytes,
        download_rate=status.download_payload_rate,
        upload_rate=status.upload_payload_rate,
    )


def _disk_failed(alert: Any) -> DiskFailed:
    code = alert.error.value()
    full = code in _NO_SPACE and alert.error.category().name() in ("system", "generic")
    path = str(alert.filename()) if isinstance(alert, lt.file_error_alert) else ""
    return DiskFailed(path, str(alert.error.message()), full)


def _tracker_failed(alert: Any) -> TrackerFailed:
    return TrackerFailed(alert.url, str(alert.error_message or alert.error.message()))


def _exported(alert: Any) -> Exported:
    try:
        torrent: Any = lt.write_torrent_file(alert.params)
        return Exported(lt.bencode(torrent))
    except RuntimeError:  # libtorrent's way to say that metadata or a piece layer is not there yet
        return Exported(None)


def _listening(alert: Any) -> Listening | None:
    tcp = alert.socket_type == lt.socket_type_t.tcp
    return Listening(str(alert.address), int(alert.port)) if tcp else None


def _listen_failed(alert: Any) -> ListenFailed:
    return ListenFailed(str(alert.address), int(alert.port), int(alert.error.value()), str(alert.error.message()))


def _leaving(alert: Any) -> Leaving | None:
    return Leaving(alert.url) if alert.event == lt.event_t.stopped else None


_Reader = Callable[[Any], Notice | None]

READERS: Mapping[type, _Reader] = {
    lt.piece_finished_alert: lambda a: PieceVerified(int(a.piece_index)),
    lt.hash_failed_alert: lambda a: PieceRejected(int(a.piece_index)),
    lt.peer_ban_alert: lambda a: PeerBanned(str(a.endpoint[0])),
    lt.file_error_alert: _disk_failed,
    lt.torrent_error_alert: _disk_failed,
    lt.tracker_reply_alert: lambda a: TrackerAnswered(a.url, int(a.num_peers)),
    lt.tracker_error_alert: _tracker_failed,
    lt.tracker_announce_alert: _leaving,
    lt.piece_availability_alert: lambda a: Available(tuple(a.piece_availability)),
    lt.file_renamed_alert: lambda a: Renamed(int(a.index)),
    lt.file_rename_failed_alert: lambda a: RenameFailed(int(a.index), str(a.error.message())),
    lt.cache_flushed_alert: lambda _: Flushed(),
    lt.metadata_received_alert: lambda _: Described(),
    lt.save_resume_data_alert: _exported,
    lt.save_resume_data_failed_alert: lambda _: Exported(None),
    lt.torrent_checked_alert: lambda _: Checked(),
    lt.tracker_list_alert: lambda _: Echo(),
    lt.torrent_removed_alert: lambda _: TorrentRemoved(),
    lt.listen_succeeded_alert: _listening,
    lt.listen_failed_alert: _listen_failed,
}
"""Every alert we use, and how it is copied. Alerts of other types are ignored."""


def notices_of(alert: Any) -> Iterable[tuple[Handle | None, Notice]]:
    """What `alert` says, and about which torrent (None: about the session)."""
    if isinstance(alert, lt.state_update_alert):
        return [(status.handle, _ticked(status)) for status in alert.status]
    reader = READERS.get(type(alert))
    notice = reader(alert) if reader else None
    return [(getattr(alert, "handle", None), notice)] if notice is not None else ()


class AlertPump:
    """Hands a session's notices to `dispatch`, on the running event loop, as they arise."""

    def __init__(self, session: lt.session, dispatch: Callable[[Handle | None, Notice], None]) -> None:
        self._session = session
        self._dispatch = dispatch
        self._bell, self._ringer = socket.socketpair()  # an eventfd is not woken: libtorrent writes single bytes
        self._bell.setblocking(False)
        self._ringer.setblocking(False)
        asyncio.get_running_loop().add_reader(self._bell, self._drain)
        session.set_alert_fd(self._ringer.fileno())
        self._drain()  # the first pop arms the bell

    def _drain(self) -> None:
        try:
            while self._bell.recv(4096):
                pass
        except BlockingIOError:
            pass
        for alert in self._session.pop_alerts():
            for handle, notice in notices_of(alert):
                self._dispatch(handle, notice)

    def stop(self) -> None:
        """Deliver nothing more. `close` the sockets once the session is gone."""
        asyncio.get_running_loop().remove_reader(self._bell)
        self._session.set_alert_fd(-1)
        del self._session

    def close(self) -> None:
        """Give the sockets back."""
        self._bell.close()
        self._ringer.close()
