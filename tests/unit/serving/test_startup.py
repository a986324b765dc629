"""The phases of a startup go forwards only."""

import pytest

from p2pmodel.core.progress.progress import Progress
from p2pmodel.errors import ModelLoading
from p2pmodel.loading.options import LoadProgress
from p2pmodel.serving.startup import Startup, WeightProgress
from tests.support.recording_reporter import RecordingReporter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_from_nothing_to_ready() -> None:
    clock, screen = Clock(), RecordingReporter()
    startup = Startup("org/model", screen, clock=clock)
    assert startup.view().phase == "finding"
    startup.progress(Progress("finding"))
    assert startup.phase == "finding"
    clock.now = 102.0
    startup.progress(Progress("downloading", 100, 10, download_rate=9))
    assert (startup.phase, startup.view().transfer.eta) == ("transferring", 10.0)
    clock.now = 112.0
    startup.loading(LoadProgress("waiting"))
    assert (startup.phase, startup.view().load) == ("transferring", None)
    startup.verified()
    startup.loading(LoadProgress("loading", 5, 7, 10))
    startup.progress(Progress("done", 100, 100))
    assert (startup.phase, startup.view().load) == ("loading", WeightProgress(5, 10))
    clock.now = 115.0
    startup.ready(takes_images=True)
    clock.now = 999.0
    assert startup.reached == {"finding": 0.0, "transferring": 2.0, "loading": 12.0, "ready": 15.0}
    assert (startup.view().seconds, startup.view().takes_images) == (15.0, True)
    startup.check_ready()


@pytest.mark.parametrize(
    ("progress", "seconds", "says"),
    [
        (Progress("finding"), 2, "the model org/model is not ready: finding; GET /startupz shows the progress"),
        (Progress("downloading", 1000, 500, download_rate=100), 1, "transferring, 50 % of 1000 bytes"),
        (Progress("downloading", 10**9, 0, download_rate=10**5), 30, "transferring, 0 % of"),
        (Progress("checking"), 2, "not ready: transferring"),
    ],
)
def test_a_client_learns_when_to_ask_again(progress: Progress, seconds: int, says: str) -> None:
    startup = Startup("org/model", RecordingReporter())
    startup.progress(progress)
    with pytest.raises(ModelLoading, match=says) as early:
        startup.check_ready()
    assert early.value.retry_after == seconds
