"""From a request to libtorrent's parameters: what is here already, where it lies, what is wanted."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import libtorrent as lt

from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.swarm.engine import AddTorrent
from p2pmodel.swarm.libtorrent.twins import with_layers

WANTED = 4
"""libtorrent's default priority."""
_LIMITS: Any = {"max_buffer_size": 512 << 20, "max_pieces": 1 << 21, "max_decode_tokens": 1 << 25}


@dataclass(frozen=True, slots=True)
class PieceSpans:
    """Which pieces each file touches, by the engine's file index; v1 and hybrid torrents included."""

    piece_length: int
    piece_count: int
    places: tuple[tuple[int, int], ...]
    """(offset, size) of every file, pad files counted."""

    @classmethod
    def of(cls, info: lt.torrent_info) -> "PieceSpans":
        """Read the places from a loaded torrent."""
        files = info.files()
        places = tuple((files.file_offset(i), files.file_size(i)) for i in range(files.num_files()))
        return cls(info.piece_length(), info.num_pieces(), places)

    def priorities(self, files: Iterable[int] | None) -> list[int]:
        """Per piece, libtorrent's priority when only `files` are wanted (None: all of them)."""
        if files is None:
            return [WANTED] * self.piece_count
        levels = [0] * self.piece_count
        for index in files:
            offset, size = self._place(index)
            if size:
                first, last = offset // self.piece_length, (offset + size - 1) // self.piece_length
                levels[first : last + 1] = [WANTED] * (last + 1 - first)
        return levels

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self.places):
            raise InvalidInput(f"the torrent has no file {index}")
        return self.places[index]


def load(metainfo: bytes) -> lt.add_torrent_params:
    """The torrent as libtorrent reads it, without the trackers and webseeds it names. Raises BadTorrent."""
    params: lt.add_torrent_params
    try:
        params = with_layers(lt.load_torrent_buffer(metainfo, _LIMITS), _LIMITS)
    except RuntimeError as error:
        raise BadTorrent(f"the torrent cannot be used: {error}") from None
    # As a webseed client libtorrent gives a file up for ever after one HTTP error: mirrors are asked by our own
    # origin client, and only for what the swarm lacks.
    params.url_seeds = []
    params.http_seeds = []
    params.trackers = []
    params.tracker_tiers = []
    params.dht_nodes = []
    return params


def parameters(request: AddTorrent) -> tuple[lt.add_torrent_params, PieceSpans]:
    """What to give to the session. Blocking: loading a large torrent takes a second."""
    params = load(request.metainfo)
    info = params.ti
    if info is None:
        raise BadTorrent("the torrent has no info dictionary")
    spans = PieceSpans.of(info)
    params.save_path = str(request.save_path)
    params.storage_mode = lt.storage_mode_t.storage_mode_sparse
    params.renamed_files = dict(request.files)
    params.have_pieces = _have(request.have, spans.piece_count)
    # Wanting is said by piece: a file of priority 0 would put what is fed or seeded into a part file.
    priorities = spans.priorities(request.wanted)
    if request.pieces is not None:
        priorities = [level if piece in request.pieces else 0 for piece, level in enumerate(priorities)]
    params.piece_priorities = priorities
    # Empty files are node's to create.
    params.file_priorities = [WANTED if size else 0 for _, size in spans.places]
    params.trackers = list(request.trackers)
    params.tracker_tiers = list(range(len(request.trackers)))
    params.peers = list(request.peers)
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    # `have` is believed, nothing else is looked for: files that lie there already are not hashed.
    params.flags |= lt.torrent_flags.no_verify_files | lt.torrent_flags.duplicate_is_error
    if request.trackers:
        # Trackers choose who meets whom, by zone, by leases and in bounded number; peers that pass addresses on would
        # undo it.
        params.flags |= lt.torrent_flags.disable_pex
    return params, spans


def info_hash_of(params: lt.add_torrent_params) -> str:
    """v2 info-hash, 64 hex digits; of a v1 torrent 40."""
    hashes = params.ti.info_hashes() if params.ti is not None else params.info_hashes
    return str(hashes.v2) if hashes.has_v2() else str(hashes.v1)


def _have(pieces: frozenset[int], count: int) -> list[bool]:
    if pieces and not 0 <= min(pieces) <= max(pieces) < count:
        raise InvalidInput(f"the torrent has {count} pieces, not piece {max(pieces)}")
    return [piece in pieces for piece in range(count)] if pieces else []
