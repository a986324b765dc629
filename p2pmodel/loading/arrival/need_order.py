"""What a load needs next of a snapshot that is still arriving: settings and headers, then the tensors in their order.

Pure, but for the order itself: the thread that builds the model sets it once.
"""

from collections.abc import Callable, Sequence

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.request_window import FileRange, window
from p2pmodel.loading.arrival.shard_order import TensorRange

LISTED = 4
"""Windows of missing bytes that are listed: some of them may have arrived since the record on disk was written, and
the download knows which."""
SEARCHED = 8
"""Windows that are searched for them: what lies further away is not needed soon."""
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
        self._order: Sequence[TensorRange] = ()
        self._next = 0
        """How many of them have arrived without a gap in that order."""

    def begin(self, order: Sequence[TensorRange]) -> None:
        """All headers are there, and the tensors are taken in this order."""
        self._order = order

    @property
    def has_begun(self) -> bool:
        """Whether the order is known."""
        return bool(self._order)

    def missing(self, gaps: Gaps) -> list[FileRange]:
        """What is needed next and has not arrived, in that order; some windows of it.

        Before the order is known the beginning of every weight file is among it, even if it is there.
        """
        if not self._order:
            small = [FileRange(f.path, *gap) for f in self._settings for gap in gaps(f.path, 0, f.size)]
            return small + [FileRange(f.path, 0, 1) for f in self._weights if f.size]
        return self._next_tensors(gaps)

    def _next_tensors(self, gaps: Gaps) -> list[FileRange]:
        order, found = self._order, list[FileRange]()
        while self._next < len(order) and not _gaps_of(order[self._next], gaps):
            self._next += 1
        ahead, span = LISTED * self._window, SEARCHED * self._window
        for number in range(self._next, len(order)):
            place = order[number]
            for start, end in _gaps_of(place, gaps):
                _append(found, FileRange(place.shard, start, min(end, start + ahead)))
                ahead -= end - start
                if ahead <= 0:
                    return found
            span -= place.size
            if span <= 0:
                return found
        return found


def _gaps_of(place: TensorRange, gaps: Gaps) -> Sequence[tuple[int, int]]:
    return gaps(place.shard, place.start, place.end)


def _append(found: list[FileRange], following: FileRange) -> None:
    """Add a range; adjacent ones become one."""
    if found and found[-1].path == following.path and found[-1].end == following.start:
        following = FileRange(following.path, found.pop().start, following.end)
    found.append(following)
