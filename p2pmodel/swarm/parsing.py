"""Parser of a .torrent from an untrusted source: it must be p2pmodel's and consistent in every part.

The info-hash covers the info dictionary. In it the manifest states paths, sizes and origin; the file tree must agree
and holds the content hashes. Each pieces root covers a piece layer outside of the info dictionary.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from p2pmodel.core.content import merkle
from p2pmodel.core.content.layout import Layout
from p2pmodel.core.content.manifest import Manifest, check_path, path_key
from p2pmodel.core.content.merkle import HASH, FileTree
from p2pmodel.core.content.names import printable
from p2pmodel.errors import BadTorrent, IntegrityError, InvalidInput
from p2pmodel.swarm import bencode
from p2pmodel.swarm.metainfo import (
    MAX_AUTHORITY,
    MAX_PIECE_LENGTH,
    MAX_PIECES,
    MAX_TORRENT_SIZE,
    MIN_PIECE_LENGTH,
    SHA1,
    Format,
    Metainfo,
    file_indexes,
    file_list,
    is_one_file,
    layout_of,
    v1_piece_count,
)
from p2pmodel.swarm.urls import MAX_URLS, TRACKER_SCHEMES, WEB_SCHEMES, check_url

_AGAIN = "fetch it again, or create it again with 'p2pmodel torrent create REPO'"
_ASK_V2 = "use v2: create one with 'p2pmodel torrent create REPO'"
_KEYS_V2 = {b"file tree", b"meta version", b"name", b"p2pmodel", b"piece length"}
_KEYS_V1 = {b"files", b"pieces"}


def parse(data: bytes) -> Metainfo:
    """Parse and check `data` completely. Raises BadTorrent with the fault in one line."""
    if len(data) > MAX_TORRENT_SIZE:
        raise _bad(f"it is {len(data)} bytes long, more than {MAX_TORRENT_SIZE}")
    try:
        top, spans = bencode.decode_dict(data)
    except bencode.Truncated as error:
        raise _bad(f"it is cut off ({error})") from None
    except bencode.BencodeError as error:
        raise _bad(f"it is not canonical bencode ({error})") from None
    info = _dict(top, b"info")
    form = _format(info)
    manifest = _manifest(info)
    layout = _layout(info, manifest)
    raw_info = data[spans[b"info"]]
    if form == "hybrid":
        _check_v1_keys(info, layout)
    return Metainfo(
        raw=data,
        manifest=manifest,
        info_hash=hashlib.sha256(raw_info).hexdigest(),
        info_hash_v1=hashlib.sha1(raw_info, usedforsecurity=False).hexdigest() if form == "hybrid" else None,
        format=form,
        layout=layout,
        trees=_trees(_leaves(info), _dict(top, b"piece layers"), layout),
        trackers=_trackers(top),
        webseeds=_urls(top.get(b"url-list", []), WEB_SCHEMES, "webseed"),
        file_indexes=file_indexes(layout, form),
        authority=_authority(info, form, manifest),
    )


def export_indexes(raw: bytes) -> tuple[tuple[int, ...], int]:
    """For a torrent of any format by `build`: the engine's index of each of the manifest's files (pad files are
    counted), and the number of pieces. Raises BadTorrent for a torrent of another program."""
    try:
        info = _dict(bencode.decode_dict(raw)[0], b"info")
    except bencode.BencodeError as error:
        raise _bad(f"it is not canonical bencode ({error})") from None
    layout = _layout(info, _manifest(info))
    if b"meta version" not in info:
        return file_indexes(layout, "v1"), v1_piece_count(layout, padded=False)
    return file_indexes(layout, "hybrid" if b"files" in info else "v2"), layout.piece_count


def _format(info: Mapping[bytes, Any]) -> Format:
    if b"meta version" not in info and b"file tree" not in info:
        raise BadTorrent("this .torrent is v1 only: its files cannot be verified one by one", hint=_ASK_V2)
    if info.get(b"meta version") != 2:
        raise _bad("its meta version is not 2")
    if b"p2pmodel" not in info:
        raise BadTorrent(
            "this .torrent was not made by p2pmodel: it names no repository and commit",
            hint="create one with 'p2pmodel torrent create REPO'",
        )
    form: Format = "hybrid" if _KEYS_V1 & info.keys() else "v2"
    expected = _KEYS_V2 | (_KEYS_V1 if form == "hybrid" else set())
    for key in sorted((expected ^ info.keys()) - {b"private", b"ssl-cert"}):
        raise _bad(f"its info dictionary {'lacks' if key in expected else 'has an unknown'} '{_shown(key)}'")
    return form


def _manifest(info: Mapping[bytes, Any]) -> Manifest:
    try:
        manifest = Manifest.from_dict(_plain(_dict(info, b"p2pmodel")))
    except UnicodeDecodeError:
        raise _bad("its manifest is not valid UTF-8") from None
    except (IntegrityError, InvalidInput) as error:
        raise _bad(f"its manifest cannot be used: {error.what}") from None
    if info.get(b"name") != manifest.commit.encode():
        raise _bad(f"its name is not the commit {manifest.commit} of its manifest")
    if info.get(b"private", 0) != int(manifest.private or b"ssl-cert" in info):
        raise _bad("its private flag contradicts its manifest")
    return manifest


def _authority(info: Mapping[bytes, Any], form: Format, manifest: Manifest) -> str | None:
    """The root certificate of a private swarm; None for a public one."""
    raw = info.get(b"ssl-cert")
    if raw is None:
        return None
    sound = isinstance(raw, bytes) and raw.isascii() and len(raw) <= MAX_AUTHORITY
    if not sound or form != "v2" or raw.count(b"-----BEGIN CERTIFICATE-----") != 1:
        raise _bad("its 'ssl-cert' is not one PEM certificate of a v2 torrent")
    if is_one_file(manifest):
        raise _bad("it is private and has only one file")
    return str(raw, "ascii")


def _plain(value: Any) -> Any:
    """Bencode's byte strings as text."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_plain(child) for child in value]
    if isinstance(value, dict):
        return {key.decode(): _plain(child) for key, child in value.items()}
    return value


def _layout(info: Mapping[bytes, Any], manifest: Manifest) -> Layout:
    length = info.get(b"piece length")
    sound = isinstance(length, int) and MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH and not length & (length - 1)
    if not sound:
        raise _bad("its piece length is not a power of two between 16 KiB and 128 MiB")
    layout = layout_of(manifest, length)
    if not 0 < layout.piece_count <= MAX_PIECES:
        raise _bad(f"it has {layout.piece_count} pieces, and may have 1 to {MAX_PIECES}")
    return layout


def _leaves(info: Mapping[bytes, Any]) -> dict[str, tuple[int, bytes]]:
    """Size and pieces root (empty for an empty file) of every file in the file tree, by path."""
    found: dict[str, tuple[int, bytes]] = {}
    folders: list[tuple[str, dict[bytes, Any]]] = [("", _dict(info, b"file tree"))]
    while folders:
        prefix, folder = folders.pop()
        for path, node in _children(prefix, folder):
            if b"" in node:
                found[path] = _leaf(path, node)
            else:
                folders.append((path + "/", node))
    return found


def _children(prefix: str, folder: dict[bytes, Any]) -> Iterator[tuple[str, dict[bytes, Any]]]:
    for name, node in folder.items():
        try:
            path = check_path(prefix + name.decode())
        except UnicodeDecodeError:
            raise _bad("a path in it is not valid UTF-8") from None
        except IntegrityError as error:
            raise _bad(error.what) from None
        if not isinstance(node, dict) or not node or b"/" in name:
            raise _bad(f"'{printable(path)}' is neither a file nor a folder")
        yield path, node


def _leaf(path: str, node: dict[bytes, Any]) -> tuple[int, bytes]:
    if len(node) > 1:
        raise _bad(f"'{printable(path)}' is both a file and a folder")
    leaf = _dict(node, b"")
    if b"attr" in leaf or b"symlink path" in leaf:
        raise _bad(f"'{printable(path)}' is a symlink or no plain file")
    size, root = leaf.get(b"length"), leaf.get(b"pieces root", b"")
    if not isinstance(size, int) or not isinstance(root, bytes) or len(root) != (HASH if size else 0):
        raise _bad(f"the entry of '{printable(path)}' is malformed")
    if leaf.keys() != ({b"length", b"pieces root"} if size else {b"length"}):
        raise _bad(f"the entry of '{printable(path)}' has unknown keys")
    return size, root


def _trees(leaves: Mapping[str, tuple[int, bytes]], layers: Mapping[bytes, Any], layout: Layout) -> dict[str, FileTree]:
    """The files' trees. A layer shared by files of equal content is hashed once, so the size of the .torrent bounds the
    cost."""
    _check_agreement({path: size for path, (size, _) in leaves.items()}, layout)
    trees: dict[str, FileTree] = {}
    known: dict[bytes, FileTree] = {}
    for span in layout.spans:
        if span.piece_count == 1:
            trees[span.path] = FileTree(leaves[span.path][1], b"")
        elif span.piece_count:
            root = leaves[span.path][1]
            tree = known.get(root) or _tree(root, layers.get(root), layout.piece_length)
            if tree is None or len(tree.layer) != HASH * span.piece_count:
                raise _bad(f"the piece layer of '{printable(span.path)}' is missing or wrong")
            trees[span.path] = known[root] = tree
    if layers.keys() - known.keys():
        raise _bad("it has a piece layer of no file")
    return trees


def _check_agreement(sizes: Mapping[str, int], layout: Layout) -> None:
    listed = {span.path: span.size for span in layout.spans}
    for path in sorted(listed.keys() | sizes.keys(), key=path_key):
        if listed.get(path) != sizes.get(path):
            raise _bad(f"its manifest contradicts its file tree about '{printable(path)}'")


def _tree(root: bytes, layer: Any, piece_length: int) -> FileTree | None:
    """The tree of several pieces under `root`; None if `layer` does not hash to it."""
    if not isinstance(layer, bytes) or len(layer) % HASH or len(layer) < 2 * HASH:
        return None
    tree = merkle.tree_of([layer[at : at + HASH] for at in range(0, len(layer), HASH)], piece_length)
    return tree if tree.root == root else None


def _check_v1_keys(info: Mapping[bytes, Any], layout: Layout) -> None:
    """The v1 half must list the same files; its SHA-1 hashes can only be checked with the data."""
    expected = bencode.decode(bencode.encode(file_list(layout, padded=True)))
    pieces = info[b"pieces"]
    if info[b"files"] != expected or not isinstance(pieces, bytes) or len(pieces) != SHA1 * layout.piece_count:
        raise _bad("its v1 and v2 parts contradict each other")


def _trackers(top: Mapping[bytes, Any]) -> tuple[str, ...]:
    tiers = top.get(b"announce-list", [])
    if not isinstance(tiers, list) or not all(isinstance(tier, list) for tier in tiers):
        raise _bad("its announce-list is malformed")
    first = [top[b"announce"]] if b"announce" in top else []
    return _urls([*first, *(url for tier in tiers for url in tier)], TRACKER_SCHEMES, "tracker")


def _urls(listed: Any, schemes: tuple[str, ...], what: str) -> tuple[str, ...]:
    """The distinct URLs of `listed`, a list or a single one. An engine reads them too, so a bad one is an error."""
    urls = listed if isinstance(listed, list) else [listed]
    if len(urls) > 2 * MAX_URLS or not all(isinstance(url, bytes) for url in urls):
        raise _bad(f"its {what} list is malformed or too long")
    try:
        return tuple(dict.fromkeys(check_url(url.decode("latin-1"), schemes, what) for url in urls))
    except InvalidInput as error:
        raise _bad(error.what) from None


def _dict(parent: Mapping[bytes, Any], key: bytes) -> dict[bytes, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise _bad(f"its '{_shown(key)}' is missing or malformed")
    return value


def _shown(key: bytes) -> str:
    return printable(key.decode("utf-8", "replace"), 40)


def _bad(reason: str) -> BadTorrent:
    return BadTorrent(f"this .torrent cannot be used: {reason}", hint=_AGAIN)
