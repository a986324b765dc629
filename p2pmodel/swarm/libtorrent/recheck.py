"""Check of pieces on disk against the torrent's hashes."""

from collections.abc import Iterable
from pathlib import Path

from p2pmodel.swarm.engine import AddTorrent
from p2pmodel.swarm.torrents import Metainfo, parse


def recheck(request: AddTorrent, pieces: Iterable[int]) -> frozenset[int]:
    """The `pieces` that pass, read from the request's files. Blocking: reads and hashes all of them."""
    candidates = sorted(pieces)
    if not candidates:
        return frozenset()
    metainfo = parse(request.metainfo)
    return frozenset(piece for piece in candidates if _passes(metainfo, request, piece))


def _passes(metainfo: Metainfo, request: AddTorrent, piece: int) -> bool:
    place = metainfo.layout.piece_range(piece)
    path = request.files.get(metainfo.file_indexes[place.span.index])
    if path is None:
        return False
    try:
        with (request.save_path / Path(path)).open("rb") as file:
            file.seek(place.offset)
            return metainfo.accepts(piece, file.read(place.length))
    except OSError:
        return False
