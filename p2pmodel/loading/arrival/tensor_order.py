"""The order in which a load takes what is still arriving, and the requests to the download for what comes next.

transformers takes tensors sorted by their names, with numbers by value, and one at a time where it converts them. So a
tensor that is early in that order and arrives last leaves all the work until then. Numbered names put the order into
our hands: `NUMBERED` is the `key_mapping` that removes the numbers again, so that tensors are taken as they arrive.

Settings and headers are requested first, then the tensors in their order, which the thread that builds the model sets
once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.core.content.request_window import FileRange, window

NUMBERED = {r"^\d{8}\.": ""}
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class TensorRange:
    """Where the bytes of the tensor `name` are: [start, end) of the file `shard`."""

    name: str
    shard: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.start


def begin_with(arrived: Sequence[int], first: int) -> int:
    """The number of the shard to begin with: the one of which most has `arrived`, of equal ones number `first`.

    A download in order of the files begins with the first one, and stays ahead of the load. One that is rarest first
    has more of another shard on each node.
    """
    most = [number for number, count in enumerate(arrived) if count == max(arrived)]
    return most[first % len(most)]


def file_after_file(places: Iterable[TensorRange], shards: Sequence[str], first: int) -> list[TensorRange]:
    """The tensors shard by shard, from shard number `first` on.

    Nodes that start together should begin with different shards, so that each soon has pieces that the others lack.
    """
    turn = {shard: (number - first) % len(shards) for number, shard in enumerate(shards)}
    return sorted(places, key=lambda place: (turn[place.shard], place.start))


def files_together(places: Iterable[TensorRange], sizes: Mapping[str, int], at_once: int) -> list[TensorRange]:
    """The tensors as they arrive where `at_once` shards at a time are downloaded, each from its beginning on, the
    largest first."""
    queue = sorted(sizes, key=lambda shard: -sizes[shard])
    group = {shard: number // at_once for number, shard in enumerate(queue)}
    return sorted(places, key=lambda place: (group[place.shard], place.end / sizes[place.shard], place.shard))


def numbered(names: Sequence[str]) -> dict[str, str]:
    """By name, the name with its number in this order."""
    return {name: f"{number:0{_DIGITS}d}.{name}" for number, name in enumerate(names)}


def without_number(name: str) -> str:
    """The tensor's own name."""
    return name[_DIGITS + 1 :] if name[:_DIGITS].isdigit() and name[_DIGITS : _DIGITS + 1] == "." else name


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


REQUEST_EVERY = 0.2
"""Seconds between two looks at what is needed next."""
MOST_PLACES = 500
"""Places of one request, the first ones; the daemon takes twice as many."""
Request = Callable[[Sequence[FileRange]], Awaitable[bool]]
"""Asks for these places before others, and returns whether that is possible: the files come from a swarm."""


async def no_requests(_places: Sequence[FileRange]) -> bool:
    """The request of a download that takes none."""
    return False


class OrderRequests:
    """Asks `request` for what `need` says; `gaps` says what has arrived."""

    def __init__(self, need: NeedOrder, gaps: Gaps, request: Request) -> None:
        self.in_swarm = False
        """Whether the files come from a swarm, as of the last request."""
        self._need = need
        self._gaps = gaps
        self._request = request

    async def run(self) -> None:
        """Until cancelled. Each time more of the same places can come first, since others have arrived."""
        while True:
            places = await asyncio.to_thread(self._need.missing, self._gaps)
            if places:
                self.in_swarm = await self._request(places[:MOST_PLACES])
            await asyncio.sleep(REQUEST_EVERY)
