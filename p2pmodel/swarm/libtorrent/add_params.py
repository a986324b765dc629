"""Conversion of an AddTorrent into libtorrent's parameters."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import libtorrent as lt

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.swarm.engine import AddTorrent
from p2pmodel.swarm.libtorrent.private_torrents import is_private

WANTED = 4
"""libtorrent's default priority."""
_LIMITS: Any = {"max_buffer_size": 512 << 20, "max_pieces": 1 << 21, "max_decode_tokens": 1 << 25}


@dataclass(frozen=True, slots=True)
class PieceSpans:
    """The pieces of each file, by the engine's file index; also for v1 and hybrid torrents."""

    piece_length: int
    piece_count: int
    places: tuple[tuple[int, int], ...]
    """(offset, size) of every file, pad files included."""
    padding: frozenset[int] = frozenset()
    """The indexes of pad files."""
    v2_only: bool = True
    """Whether the torrent has no v1 hashes."""

    @classmethod
    def of(cls, info: lt.torrent_info) -> "PieceSpans":
        """Read the places from a loaded torrent."""
        files = info.files()
        places = tuple((files.file_offset(i), files.file_size(i)) for i in range(files.num_files()))
        padding = frozenset(i for i in range(files.num_files()) if files.file_flags(i) & lt.file_flags_t.flag_pad_file)
        return cls(info.piece_length(), info.num_pieces(), places, padding, v2_only=not info.info_hashes().has_v1())

    def priorities(self, files: Iterable[int] | None) -> list[int]:
        """libtorrent's priority of every piece if only `files` are wanted (None: all)."""
        if files is None:
            return [WANTED] * self.piece_count
        levels = [0] * self.piece_count
        for index in files:
            offset, size = self._place(index)
            if size:
                first, last = offset // self.piece_length, (offset + size - 1) // self.piece_length
                levels[first : last + 1] = [WANTED] * (last + 1 - first)
        return levels

    @property
    def fit_web_seeds(self) -> bool:
        """Whether libtorrent downloads the torrent from web seeds without an error (2.1.1).

        It joins requests for adjacent blocks, also across files. The last block of a file that ends within the last
        block of its piece is shorter, and a request that goes on in the next file then ends too early: its network
        thread loops for ever (web_peer_connection::handle_padfile). Hybrid torrents were not tried.
        """
        ends = (sum(place) % self.piece_length for index, place in enumerate(self.places) if index not in self.padding)
        inside = [end for end in ends if end > self.piece_length - BLOCK]
        return self.v2_only and not inside

    @property
    def padded(self) -> frozenset[int]:
        """The pieces that a pad file fills up: the last one of each file, except of the torrent's last file."""
        return frozenset(self.places[index][0] // self.piece_length for index in self.padding if self.places[index][1])

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self.places):
            raise InvalidInput(f"the torrent has no file {index}")
        return self.places[index]


def load(metainfo: bytes) -> lt.add_torrent_params:
    """The torrent as libtorrent loads it, without its trackers and web seeds. Raises BadTorrent."""
    params: lt.add_torrent_params
    try:
        params = with_layers(lt.load_torrent_buffer(metainfo, _LIMITS), _LIMITS)
    except RuntimeError as error:
        raise BadTorrent(f"the torrent cannot be used: {error}") from None
    # libtorrent's web seed client drops a file for ever after one HTTP error. Our own origin client asks mirrors, and
    # only for pieces that the swarm lacks.
    params.url_seeds = []
    params.http_seeds = []
    params.trackers = []
    params.tracker_tiers = []
    params.dht_nodes = []
    return params


def parameters(request: AddTorrent) -> tuple[lt.add_torrent_params, PieceSpans]:
    """The parameters for the session. Blocking: a large torrent takes a second to load."""
    params = load(request.metainfo)
    info = params.ti
    if info is None:
        raise BadTorrent("the torrent has no info dictionary")
    spans = PieceSpans.of(info)
    params.save_path = str(request.save_path)
    params.storage_mode = lt.storage_mode_t.storage_mode_sparse
    params.renamed_files = dict(request.files)
    params.have_pieces = _have(request.have, spans.piece_count)
    # By piece, not by file: the fed or seeded bytes of a file of priority 0 would go to a part file.
    priorities = spans.priorities(request.wanted)
    if request.pieces is not None:
        priorities = [level if piece in request.pieces else 0 for piece, level in enumerate(priorities)]
    params.piece_priorities = priorities
    # The node room creates empty files.
    params.file_priorities = [WANTED if size else 0 for _, size in spans.places]
    params.trackers = list(request.trackers)
    params.tracker_tiers = list(range(len(request.trackers)))
    params.peers = list(request.peers)
    params.url_seeds = list(request.web_seeds.urls) if spans.fit_web_seeds else []
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    # `have` is trusted, and existing files are not hashed.
    params.flags |= lt.torrent_flags.no_verify_files | lt.torrent_flags.duplicate_is_error
    if not is_private(info):
        params.flags &= ~lt.torrent_flags.apply_ip_filter
    elif request.certificate is None:
        raise InvalidInput("a private swarm admits no peer without a certificate")
    if request.trackers:
        # Trackers choose the peers of each node by zone, by leases and in bounded number; peer exchange would undo
        # that.
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


def duplicates_of(info: lt.torrent_info) -> list[list[int]]:
    """Groups of indexes of files with a common piece layer. Files of at most one piece have no layer."""
    files = info.files()
    by_root: dict[str, list[int]] = {}
    for index in range(files.num_files()):
        if files.file_size(index) > info.piece_length():
            by_root.setdefault(str(files.root(index)), []).append(index)
    return [group for group in by_root.values() if len(group) > 1]


def with_layers(params: lt.add_torrent_params, limits: Any) -> lt.add_torrent_params:
    """`params` with the layer set for every file that shares it: a workaround for large files of equal content in one
    torrent (libtorrent 2.1.1).

    They share a pieces root, and so a piece layer. On load libtorrent moves that layer to the first such file. The
    pieces of the others can then not be checked, and a download waits for them for ever. This goes through resume data:
    the bindings expose the trees in no other form.
    """
    groups = duplicates_of(params.ti) if params.ti is not None and params.ti.info_hashes().has_v2() else []
    if not groups:
        return params
    plain: Any = lt.bdecode(lt.write_resume_data_buf(params))
    trees = plain[b"trees"]
    for group in groups:
        layers = [trees[index] for index in group if trees[index].get(b"hashes")]
        for index in group if layers else ():
            trees[index] = dict(layers[0])
    loaded: lt.add_torrent_params = lt.read_resume_data(lt.bencode(plain), limits)
    return loaded
