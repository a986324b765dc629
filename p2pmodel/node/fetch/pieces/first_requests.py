"""Requests for places of unfinished files before all others: from a load in this process, or from clients of a daemon.

A piece that was requested stays first until it arrives, so the number of missing ones is bounded for each repository:
whatever clients send, the rest stays rarest first.
"""

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

from p2pmodel.core.content.layout import piece_length_for
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import printable
from p2pmodel.core.content.request_window import FileRange, most_pieces
from p2pmodel.core.progress.views import FirstPiecesView
from p2pmodel.errors import InvalidInput
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.growing_file import GrowingFile, GrowingFiles


class FirstRequests:
    """The only owner of what was requested of the files in `growing`. A file is forgotten with its transfer."""

    def __init__(self, growing: GrowingFiles) -> None:
        self._growing = growing
        self._missing: WeakKeyDictionary[GrowingFile, set[int]] = WeakKeyDictionary()
        """By file, the offsets of the pieces that were requested and have not arrived, as of the last request."""

    def request(self, repo: RepoCache, manifest: Manifest, places: Sequence[FileRange]) -> FirstPiecesView:
        """Ask the peers for `places`, the first ones first, as far as `most_pieces` allows; repeat it for the rest.

        Raises InvalidInput for a file or a byte that the snapshot does not have.
        """
        files = {file.path: file for file in manifest.files}
        for place in places:
            if place.path not in files or not place.start <= place.end <= files[place.path].size:
                what = f"{printable(place.path)} has no bytes {place.start} to {place.end} in {manifest.repo}"
                raise InvalidInput(what, hint="the files and their sizes are in the manifest of the snapshot")
        count, in_swarm = self._still_missing(repo), False
        most, length = most_pieces(manifest.total_size), piece_length_for(manifest.total_size)
        for place in places:
            growing = self._growing.file(repo, files[place.path])
            in_swarm = in_swarm or growing.takes_requests
            asked = self._missing.setdefault(growing, set())
            for offset in _pieces(place, length):
                if count >= most:
                    return FirstPiecesView(in_swarm, count)
                if offset not in asked and growing.request(offset):
                    asked.add(offset)
                    count += 1
        return FirstPiecesView(in_swarm, count)

    def _still_missing(self, repo: RepoCache) -> int:
        """How many pieces of `repo` are first now. Repeats the requests for them: an engine that has restarted after a
        failure of the disk has forgotten them."""
        count = 0
        for growing, asked in list(self._missing.items()):
            asked.intersection_update([offset for offset in asked if growing.request(offset)])
            if not asked:
                del self._missing[growing]
            elif growing.repo.repo == repo.repo:
                count += len(asked)
        return count


def _pieces(place: FileRange, length: int) -> Iterator[int]:
    """The offsets of the pieces that `place` touches."""
    return iter(range(place.start - place.start % length, place.end, length))
