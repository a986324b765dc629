"""Every alert in use is copied at once, and wakes the event loop."""

import asyncio
import errno
import inspect
from types import SimpleNamespace as Fake

import libtorrent as lt
import pytest

from p2pmodel.swarm.engine import (
    DiskFailed,
    PeerBanned,
    PieceRejected,
    PieceVerified,
    TrackerAnswered,
    TrackerFailed,
    TrackerWarned,
)
from p2pmodel.swarm.libtorrent import alerts
from tests.support.eventually import PATIENCE


def error(code: int, *, category: str = "system", message: str = "it broke") -> Fake:
    return Fake(value=lambda: code, category=lambda: Fake(name=lambda: category), message=lambda: message)


URL = "http://t/announce"


@pytest.mark.parametrize(
    ("kind", "alert", "notice"),
    [
        (lt.piece_finished_alert, Fake(piece_index=3), PieceVerified(3)),
        (lt.hash_failed_alert, Fake(piece_index=3), PieceRejected(3)),
        (lt.peer_ban_alert, Fake(endpoint=("10.0.0.1", 5)), PeerBanned("10.0.0.1")),
        (lt.torrent_error_alert, Fake(error=error(errno.EIO)), DiskFailed("", "it broke", full=False)),
        (lt.torrent_error_alert, Fake(error=error(errno.ENOSPC)), DiskFailed("", "it broke", full=True)),
        (lt.torrent_error_alert, Fake(error=error(errno.EDQUOT)), DiskFailed("", "it broke", full=True)),
        (lt.torrent_error_alert, Fake(error=error(28, category="http")), DiskFailed("", "it broke", full=False)),
        (lt.tracker_reply_alert, Fake(url=URL, num_peers=4), TrackerAnswered(URL, 4)),
        (lt.tracker_error_alert, Fake(url=URL, failure_reason=lambda: "no", error=error(1)), TrackerFailed(URL, "no")),
        (
            lt.tracker_error_alert,
            Fake(url=URL, failure_reason=lambda: "", error=error(1)),
            TrackerFailed(URL, "it broke"),
        ),
        (lt.tracker_warning_alert, Fake(url=URL, message=lambda: "warning: x"), TrackerWarned(URL, "warning: x")),
        (lt.tracker_announce_alert, Fake(url=URL, event=lt.event_t.stopped), alerts.Leaving(URL)),
        (lt.tracker_announce_alert, Fake(url=URL, event=lt.event_t.started), None),
        (lt.piece_availability_alert, Fake(piece_availability=[1, 0]), alerts.Available((1, 0))),
        (lt.cache_flushed_alert, Fake(), alerts.Flushed()),
        (lt.metadata_received_alert, Fake(), alerts.Described()),
        (lt.save_resume_data_failed_alert, Fake(), alerts.Exported(None)),
        (lt.save_resume_data_alert, Fake(params=lt.add_torrent_params()), alerts.Exported(None)),
        (lt.torrent_checked_alert, Fake(), alerts.Checked()),
        (lt.tracker_list_alert, Fake(), alerts.Echo()),
        (lt.torrent_removed_alert, Fake(), alerts.TorrentRemoved()),
        (
            lt.listen_succeeded_alert,
            Fake(socket_type=lt.socket_type_t.tcp, address="::1", port=7),
            alerts.Listening("::1", 7),
        ),
        (lt.listen_succeeded_alert, Fake(socket_type=lt.socket_type_t.utp, address="::1", port=7), None),
        (
            lt.listen_failed_alert,
            Fake(socket_type=lt.socket_type_t.tcp, address="::1", port=7, error=error(98)),
            alerts.ListenFailed("::1", 7, 98, "it broke"),
        ),
    ],
)
def test_each_alert_is_copied(kind: type, alert: Fake, notice: object) -> None:
    for name, value in vars(alert).items():
        assert callable(value) is not isinstance(inspect.getattr_static(kind, name), property), f"{kind}.{name}"
    assert alerts.READERS[kind](alert) == notice


def test_an_alert_of_another_kind_gives_no_notice() -> None:
    assert list(alerts.notices_of(Fake(handle=None))) == []


async def test_the_pump_delivers_without_polling_until_stopped() -> None:
    session = lt.session({"listen_interfaces": "127.0.0.1:0", "alert_mask": alerts.ALERT_MASK, "enable_dht": False})
    notices: asyncio.Queue[alerts.Notice] = asyncio.Queue()
    pump = alerts.AlertPump(session, lambda _, notice: notices.put_nowait(notice))
    for host in range(2, 5):  # the bell rings again after each pop
        async with asyncio.timeout(PATIENCE):
            assert isinstance(await notices.get(), alerts.Listening)
        session.apply_settings({"listen_interfaces": f"127.0.0.{host}:0"})
    async with asyncio.timeout(PATIENCE):
        assert await notices.get()
    pump.stop()
    session.apply_settings({"listen_interfaces": "127.0.0.5:0"})
    await asyncio.sleep(0.2)
    assert notices.empty()
    del session
    pump.close()
