"""Creation of torrents: the same commit always gives the same info dictionary (BEP 3, 47, 52).

The info dictionary contains the file tree, the commit as `name`, and the manifest under `p2pmodel`; all of it follows
from the repository, the commit and the files' hashes. Trackers and web seeds are outside of it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pmodel.core.content.layout import Layout
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.merkle import HASH, FileTree
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.swarm import bencode
from p2pmodel.swarm.metainfo import (
    MAX_PIECES,
    MAX_TORRENT_SIZE,
    SHA1,
    Format,
    Metainfo,
    file_list,
    is_one_file,
    layout_of,
    v1_piece_count,
)
from p2pmodel.swarm.parsing import export_indexes, parse
from p2pmodel.swarm.urls import MAX_URLS, TRACKER_SCHEMES, WEB_SCHEMES, check_url, webseed_url

__all__ = [
    "MAX_TORRENT_SIZE",
    "Format",
    "Metainfo",
    "build",
    "export_indexes",
    "info_hash_of",
    "layout_of",
    "parse",
    "read_torrent",
    "webseed_url",
]


def read_torrent(path: Path) -> bytes:
    """The bytes of the .torrent at `path`, at most one more than MAX_TORRENT_SIZE. Raises NotFound or InvalidInput."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_TORRENT_SIZE + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {printable(str(path))}") from None
    except OSError as error:
        raise InvalidInput(f"{printable(str(path))} cannot be read: {error.strerror}") from None


def info_hash_of(raw: bytes) -> str:
    """The info-hash that names a torrent of any format by `build`: 64 hex digits, 40 of a v1 torrent."""
    top, spans = bencode.decode_dict(raw)
    plain, info = top[b"info"], raw[spans[b"info"]]
    assert isinstance(plain, dict)
    if b"meta version" in plain:
        return hashlib.sha256(info).hexdigest()
    return hashlib.sha1(info, usedforsecurity=False).hexdigest()


def build(
    manifest: Manifest,
    trees: Mapping[str, FileTree],
    *,
    format: Format = "v2",  # noqa: A002
    v1_pieces: bytes | None = None,
    trackers: Sequence[str] = (),
    webseeds: Sequence[str] = (),
    piece_length: int | None = None,
    authority: str | None = None,
) -> bytes:
    """The .torrent of a snapshot.

    `authority`: the root certificate (PEM) of a private swarm, of which every peer needs a certificate; v2 only.

    `trees`: by path, for every non-empty file. `v1_pieces`: SHA-1 of every piece, concatenated; for v1 over the
    concatenated files in manifest order, for hybrid with zeros between them so that each starts a piece. `webseeds`:
    complete URLs, see `urls.webseed_url`. `piece_length` is for experiments: seeders share a swarm only with the
    default. Raises InvalidInput for an empty snapshot, too many pieces or a bad URL, and ValueError for hashes that do
    not belong to the manifest.
    """
    layout = layout_of(manifest, piece_length)
    if not 0 < layout.piece_count <= MAX_PIECES:
        raise InvalidInput(f"{manifest.repo} cannot be a torrent: it has {layout.piece_count} pieces")
    info: dict[str, Any] = {
        "name": manifest.commit,
        "p2pmodel": manifest.to_dict(),
        "piece length": layout.piece_length,
    }
    if manifest.private or authority:
        info["private"] = 1
    if authority:
        if format != "v2":
            raise InvalidInput(
                f"a private swarm has no {format} torrent", hint="leave --format out: v2 is the only one"
            )
        if is_one_file(manifest):
            raise InvalidInput(
                f"{manifest.repo} has only one file, and a private swarm needs two",
                hint="add a second file, such as README.md, to the snapshot",
            )
        info["ssl-cert"] = authority
    if format != "v1":
        info |= {"meta version": 2, "file tree": _file_tree(layout, trees)}
    if format != "v2":
        info |= _v1_keys(layout, v1_pieces, padded=format == "hybrid")
    torrent: dict[str, Any] = {"created by": "p2pmodel", "info": info} | _sources(trackers, webseeds)
    if format != "v1":
        torrent["piece layers"] = {t.root: t.layer for t in trees.values() if t.layer}
    return bencode.encode(torrent)


def _file_tree(layout: Layout, trees: Mapping[str, FileTree]) -> dict[str, Any]:
    top: dict[str, Any] = {}
    for span in layout.spans:
        leaf: dict[str, Any] = {"length": span.size}
        if span.size:
            tree = trees[span.path]
            if len(tree.root) != HASH or len(tree.layer) != (HASH * span.piece_count if span.piece_count > 1 else 0):
                raise ValueError(f"the tree of {span.path} is not that of {span.piece_count} pieces")
            leaf["pieces root"] = tree.root
        *folders, name = span.path.split("/")
        folder = top
        for part in folders:
            folder = folder.setdefault(part, {})
        folder[name] = {"": leaf}
    return top


def _v1_keys(layout: Layout, v1_pieces: bytes | None, *, padded: bool) -> dict[str, Any]:
    count = v1_piece_count(layout, padded=padded)
    if v1_pieces is None or len(v1_pieces) != SHA1 * count:
        raise ValueError(f"the SHA-1 hashes of {count} pieces are needed")
    return {"files": file_list(layout, padded=padded), "pieces": v1_pieces}


def _sources(trackers: Sequence[str], webseeds: Sequence[str]) -> dict[str, Any]:
    """One tier per tracker (BEP 12), so that all clients prefer the same one, and meet there."""
    if len(trackers) > MAX_URLS or len(webseeds) > MAX_URLS:
        raise InvalidInput(f"a torrent holds at most {MAX_URLS} trackers and {MAX_URLS} webseeds")
    announce = list(dict.fromkeys(check_url(url, TRACKER_SCHEMES, "tracker") for url in trackers))
    web = list(dict.fromkeys(check_url(url, WEB_SCHEMES, "webseed") for url in webseeds))
    keys: dict[str, Any] = {}
    if announce:
        keys |= {"announce": announce[0], "announce-list": [[url] for url in announce]}
    if web:
        keys["url-list"] = web
    return keys
