"""The latest numbers of a transfer: totals that a scrape can rely on."""

from p2pmodel.core.progress.progress import Progress
from p2pmodel.node.transfer.transfer_monitor import TransferMonitor


class Unseen:
    def transfer_changed(self) -> None: ...
    def transfer_settled(self) -> None: ...
    def log(self, line: str) -> None: ...


def test_totals_never_fall_while_the_task_runs_and_begin_anew_with_the_next_one():
    monitor = TransferMonitor("org/model", Unseen())
    monitor.progress(Progress("mirroring", from_mirrors=500, from_peers=20, download_rate=7))
    monitor.progress(Progress("checking", from_mirrors=0, from_peers=30, done=3))
    seen = monitor.latest
    assert (seen.phase, seen.from_mirrors, seen.from_peers, seen.done, seen.download_rate) == (
        "checking",
        500,
        30,
        3,
        0,
    )
    monitor.ended()
    assert monitor.latest.from_mirrors == 500
    monitor.progress(Progress("mirroring", from_mirrors=10))
    assert monitor.latest.from_mirrors == 10
