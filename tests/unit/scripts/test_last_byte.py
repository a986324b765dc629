"""The last byte of a fetch is noted once, before the last hashes."""

from p2pmodel.core.progress.progress import Phase, Progress
from scripts.bench.rigs.last_byte import LastByte


def test_it_is_noted_once_when_only_hashes_are_left() -> None:
    seen: list[Phase] = []
    now: list[Phase] = []
    reporter = LastByte(lambda: seen.append(now[-1]))
    phases: tuple[Phase, ...] = ("finding", "checking", "downloading", "downloading", "verifying", "publishing", "done")
    for phase in phases:
        now.append(phase)
        reporter.progress(Progress(phase, 10, 10))
    assert seen == ["verifying"]
