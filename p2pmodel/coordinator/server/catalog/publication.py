"""A .torrent in the catalog: checked, with the names by which it is found."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from p2pmodel.core.content.layout import Layout
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import BadTorrent, IntegrityError, InvalidInput
from p2pmodel.swarm import bencode
from p2pmodel.swarm.metainfo import MAX_PIECE_LENGTH, MIN_PIECE_LENGTH, SHA1, file_list, v1_piece_count
from p2pmodel.swarm.torrents import Format, layout_of, parse

MAX_TORRENT = 16 << 20
"""Bytes of the largest .torrent; that of 500 GB has about 1 MB."""

_V1_KEYS = {b"files", b"name", b"p2pmodel", b"piece length", b"pieces"}


@dataclass(frozen=True, slots=True)
class Publication:
    """A checked .torrent; `raw` is served as it came.

    `info_hashes` are hexadecimal: v2 (64 digits) first, then v1 (40).
    """

    raw: bytes
    repo: RepoId
    commit: str
    format: Format
    info_hashes: tuple[str, ...]
    size: int
    """Bytes of the snapshot's files together."""
    files: int
    piece_count: int
    """Pieces that hold content, in its v2 or hybrid form."""
    private: bool
    authority: str | None = None
    """Root certificate (PEM) of its private swarm; None: the swarm is public."""

    @property
    def info_hash(self) -> str:
        """The hash that names the torrent."""
        return self.info_hashes[0]

    @property
    def announced(self) -> tuple[bytes, ...]:
        """The 20 bytes by which trackers know it; a v2 hash is cut to that length (BEP 52)."""
        return tuple(bytes.fromhex(h)[:20] for h in self.info_hashes)


def read_publication(data: bytes) -> Publication:
    """Check a .torrent of any format. Raises BadTorrent.

    A v1 export contains the manifest too, but none of its hashes can be compared with the manifest's: it is for
    foreign clients, and p2pmodel nodes never use it.
    """
    if len(data) > MAX_TORRENT:
        raise BadTorrent(f"this .torrent has {len(data)} bytes, more than {MAX_TORRENT}")
    v1 = _v1_info(data)
    if v1 is not None:
        info, raw_info = v1
        return _publication(data, _v1_manifest(info), "v1", hashlib.sha1(raw_info, usedforsecurity=False).hexdigest())
    metainfo = parse(data)
    hashes = [h for h in (metainfo.info_hash, metainfo.info_hash_v1) if h]
    return _publication(data, metainfo.manifest, metainfo.format, *hashes, authority=metainfo.authority)


def _publication(
    data: bytes, manifest: Manifest, form: Format, *info_hashes: str, authority: str | None = None
) -> Publication:
    return Publication(
        raw=data,
        repo=manifest.repo,
        commit=manifest.commit,
        format=form,
        info_hashes=info_hashes,
        size=manifest.total_size,
        files=len(manifest.files),
        piece_count=layout_of(manifest).piece_count,
        private=manifest.private or authority is not None,
        authority=authority,
    )


def _v1_info(data: bytes) -> tuple[Mapping[bytes, Any], bytes] | None:
    """The info dictionary and its bytes, if this is a v1 torrent made by p2pmodel."""
    try:
        top, spans = bencode.decode_dict(data)
    except bencode.BencodeError:
        return None
    info = top.get(b"info")
    if not isinstance(info, dict) or info.keys() - {b"private"} != _V1_KEYS:
        return None
    return info, data[spans[b"info"]]


def _v1_manifest(info: Mapping[bytes, Any]) -> Manifest:
    try:
        manifest = Manifest.from_dict(_text(info[b"p2pmodel"]))
        layout = layout_of(manifest, _piece_length(info[b"piece length"]))
    except (UnicodeDecodeError, IntegrityError, InvalidInput, AttributeError) as error:
        reason = error.what if isinstance(error, IntegrityError | InvalidInput) else "it is malformed"
        raise BadTorrent(f"the manifest in this v1 .torrent cannot be used: {reason}") from None
    if info[b"name"] != manifest.commit.encode() or not _agrees(info, layout):
        raise BadTorrent("this v1 .torrent contradicts its own manifest")
    return manifest


def _agrees(info: Mapping[bytes, Any], layout: Layout) -> bool:
    files = bencode.decode(bencode.encode(file_list(layout, padded=False)))
    pieces = info[b"pieces"]
    whole = isinstance(pieces, bytes) and len(pieces) == SHA1 * v1_piece_count(layout, padded=False)
    return whole and info[b"files"] == files


def _piece_length(value: Any) -> int:
    if not isinstance(value, int) or not MIN_PIECE_LENGTH <= value <= MAX_PIECE_LENGTH or value & (value - 1):
        raise IntegrityError("its piece length is not a power of two between 16 KiB and 128 MiB")
    return value


def _text(value: Any) -> Any:
    """Bencode's byte strings as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_text(child) for child in value]
    if isinstance(value, dict):
        return {key.decode(): _text(child) for key, child in value.items()}
    return value
