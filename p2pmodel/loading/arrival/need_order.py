"""What a load needs next of a snapshot that is still arriving: settings and headers, then the tensors in their order.

Pure, but for the order itself: the thread that builds the model sets it once.
"""

from collections.abc import Callable, Iterable, Sequence

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.request_window import FileRange, window
from p2pmodel.loading.arrival.shard_order import TensorRange

LISTED = 4
"""Windows of missing bytes that are listed: some of them may have arrived since the record on disk was written, and
the download knows which."""
LATE_AFTER = 4
"""Windows that have arrived of what is needed later: then a missing part is late. A download that brings the files in
the order of the load needs no requests, and a swarm exchanges best without them."""
Gaps = Callable[[str, int, int], Sequence[tuple[int, int]]]
"""The parts of [start, end) of a file that have not arrived."""


class NeedOrder:
    """The needs of one load: all of `settings`, the headers of `weights`, and then the tensors.

    `total_size`: that of the snapshot.
    """

    def __init__(self, total_size: int, settings: Sequence[ManifestFile], weights: Sequence[ManifestFile]) -> None:
        self._settings = settings
        self._weights = weights
        self._window = window(total_size)
        self._runs: list[FileRange] = []
        """The bytes of the tensors in their order, adjacent ones together."""
        self._next = 0
        """How many of them have arrived without a gap in that order."""

    def begin(self, order: Iterable[TensorRange]) -> None:
        """All headers are there, and the tensors are taken in this order."""
        runs: list[FileRange] = []
        for place in order:
            _append(runs, FileRange(place.shard, place.start, place.end))
        self._runs = runs

    @property
    def has_begun(self) -> bool:
        """Whether the order is known."""
        return bool(self._runs)

    def missing(self, gaps: Gaps) -> list[FileRange]:
        """What to request before others, in that order: of the tensors, what is late.

        Before the order is known, all of the settings and the beginning of every weight file, even if that is there.
        """
        if not self._runs:
            small = [FileRange(f.path, *gap) for f in self._settings for gap in gaps(f.path, 0, f.size)]
            return small + [FileRange(f.path, 0, 1) for f in self._weights if f.size]
        return self._late(gaps)

    def _late(self, gaps: Gaps) -> list[FileRange]:
        holes = [(run, gaps(run.path, run.start, run.end)) for run in self._runs[self._next :]]
        while holes and not holes[0][1]:
            del holes[0]
            self._next += 1
        later = sum(run.end - run.start - sum(end - start for start, end in missing) for run, missing in holes)
        found, ahead = list[FileRange](), LISTED * self._window
        for run, missing in holes:
            done = run.start
            for start, end in missing:
                later -= start - done
                if later < LATE_AFTER * self._window or ahead <= 0:
                    return found
                found.append(FileRange(run.path, start, min(end, start + ahead)))
                ahead, done = ahead - (end - start), end
            later -= run.end - done
        return found


def _append(found: list[FileRange], following: FileRange) -> None:
    """Add a range; adjacent ones become one."""
    if found and found[-1].path == following.path and found[-1].end == following.start:
        following = FileRange(following.path, found.pop().start, following.end)
    found.append(following)
