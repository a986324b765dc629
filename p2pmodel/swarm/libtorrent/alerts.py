"""Conversion of libtorrent's alerts into frozen notices.

An alert is a pointer that is valid until the next pop, so `notices_of` copies all that is used. `AlertPump` calls it
from the event loop when the session writes to its alert fd, without polling.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any

import libtorrent as lt

from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.swarm.engine import (
    DiskFailed,
    Event,
    PeerBanned,
    PeerUnreachable,
    PieceRejected,
    PieceVerified,
    TrackerAnswered,
    TrackerFailed,
    TrackerWarned,
)

Handle = lt.torrent_handle

_NO_SPACE = {28, 122}
"""ENOSPC and EDQUOT in libtorrent's system category."""

_CONNECT_TIMEOUT = "timed out"
_ANNOUNCE_SKIPPED = 180
"""libtorrent's error code of an announce that is not sent."""

ALERT_MASK = (
    lt.alert_category.error
    | lt.alert_category.connect
    | lt.alert_category.peer
    | lt.alert_category.status
    | lt.alert_category.storage
    | lt.alert_category.tracker
    | lt.alert_category.piece_progress
)


@dataclass(frozen=True, slots=True)
class Listening:
    """The session accepts TCP connections at `address`:`port`; `private`: of private torrents alone, over TLS."""

    address: str
    port: int
    private: bool = False


@dataclass(frozen=True, slots=True)
class ListenFailed:
    """The session could not listen; `code`: the errno."""

    address: str
    port: int
    code: int
    message: str
    private: bool = False


@dataclass(frozen=True, slots=True)
class Ticked:
    """A torrent's counters at one moment; `have`: verified pieces, written or not."""

    have: frozenset[int]
    peers: int
    seeds: int
    downloaded: int
    uploaded: int
    wasted: int


@dataclass(frozen=True, slots=True)
class Available:
    """Per piece, how many connected peers have it; empty for a seed."""

    peers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flushed:
    """The queued writes of a torrent are done."""


@dataclass(frozen=True, slots=True)
class Described:
    """A magnet's info dictionary came, and matches the info-hash."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The torrent as .torrent bytes; None while its metadata or piece layers are incomplete."""

    metainfo: bytes | None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A tracker receives our `stopped` event; TrackerAnswered or TrackerFailed follows."""

    url: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The torrent has accepted the pieces of `have`."""


@dataclass(frozen=True, slots=True)
class Echo:
    """Reply to `post_trackers`, used as a marker: all earlier alerts were delivered."""


@dataclass(frozen=True, slots=True)
class TorrentRemoved:
    """The session has removed the torrent."""


Notice = (
    Event
    | Listening
    | ListenFailed
    | Ticked
    | Available
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
    )


def _disk_failed(alert: Any) -> DiskFailed:
    code = alert.error.value()
    full = code in _NO_SPACE and alert.error.category().name() in ("system", "generic")
    path = str(alert.filename()) if isinstance(alert, lt.file_error_alert) else ""
    return DiskFailed(path, str(alert.error.message()), full)


def _tracker_failed(alert: Any) -> TrackerFailed | None:
    if str(alert.error.category().name()) == "libtorrent" and alert.error.value() == _ANNOUNCE_SKIPPED:
        return None  # from an address without a route to the tracker; those of other addresses are sent
    return TrackerFailed(alert.url, str(alert.failure_reason() or alert.error.message()))


def _exported(alert: Any) -> Exported:
    try:
        torrent: Any = lt.write_torrent_file(alert.params)
        return Exported(lt.bencode(torrent))
    except RuntimeError:  # libtorrent raises it while metadata or a piece layer is missing
        return Exported(None)


def _listening(alert: Any) -> Listening | None:
    private = alert.socket_type == lt.socket_type_t.tcp_ssl
    tcp = alert.socket_type == lt.socket_type_t.tcp
    return Listening(str(alert.address), int(alert.port), private) if tcp or private else None


def _listen_failed(alert: Any) -> ListenFailed:
    private = alert.socket_type == lt.socket_type_t.tcp_ssl
    code, message = int(alert.error.value()), str(alert.error.message())
    return ListenFailed(str(alert.address), int(alert.port), code, message, private)


def _leaving(alert: Any) -> Leaving | None:
    return Leaving(alert.url) if alert.event == lt.event_t.stopped else None


def _peer_unreachable(alert: Any) -> PeerUnreachable | None:
    if alert.op != lt.operation_t.connect:
        return None
    code = alert.error
    reason = _CONNECT_TIMEOUT if code.category().name() == "libtorrent" else str(code.message())
    return PeerUnreachable(str(ListenAddress(str(alert.endpoint[0]), int(alert.endpoint[1]))), reason)


_Reader = Callable[[Any], Notice | None]

READERS: Mapping[type, _Reader] = {
    lt.piece_finished_alert: lambda a: PieceVerified(int(a.piece_index)),
    lt.hash_failed_alert: lambda a: PieceRejected(int(a.piece_index)),
    lt.peer_ban_alert: lambda a: PeerBanned(str(a.endpoint[0])),
    lt.peer_disconnected_alert: _peer_unreachable,
    lt.file_error_alert: _disk_failed,
    lt.torrent_error_alert: _disk_failed,
    lt.tracker_reply_alert: lambda a: TrackerAnswered(a.url, int(a.num_peers)),
    lt.tracker_error_alert: _tracker_failed,
    lt.tracker_warning_alert: lambda a: TrackerWarned(a.url, str(a.message())),
    lt.tracker_announce_alert: _leaving,
    lt.piece_availability_alert: lambda a: Available(tuple(a.piece_availability)),
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
"""All alerts in use, and the conversion of each. Other alerts are ignored."""


def notices_of(alert: Any) -> Iterable[tuple[Handle | None, Notice]]:
    """The notices in `alert`, each with its torrent (None: the session)."""
    if isinstance(alert, lt.state_update_alert):
        return [(status.handle, _ticked(status)) for status in alert.status]
    reader = READERS.get(type(alert))
    notice = reader(alert) if reader else None
    return [(getattr(alert, "handle", None), notice)] if notice is not None else ()


class AlertPump:
    """Passes a session's notices to `dispatch` on the running event loop."""

    def __init__(self, session: lt.session, dispatch: Callable[[Handle | None, Notice], None]) -> None:
        self._session = session
        self._dispatch = dispatch
        self._wake_in, self._wake_out = socket.socketpair()  # no eventfd: libtorrent writes single bytes
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        asyncio.get_running_loop().add_reader(self._wake_in, self._drain)
        session.set_alert_fd(self._wake_out.fileno())
        self._drain()  # the first pop arms the alert fd

    def _drain(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            pass
        for alert in self._session.pop_alerts():
            for handle, notice in notices_of(alert):
                self._dispatch(handle, notice)

    def stop(self) -> None:
        """Stop the delivery. `close` the sockets after the end of the session."""
        asyncio.get_running_loop().remove_reader(self._wake_in)
        self._session.set_alert_fd(-1)
        del self._session

    def close(self) -> None:
        """Close the sockets."""
        self._wake_in.close()
        self._wake_out.close()
