"""Torrents are equal to libtorrent's for every shape of snapshot, and deterministic."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.core.content.layout import GB, piece_length_for
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.merkle import HASH, FileTree
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import BadTorrent, InvalidInput
from p2pmodel.swarm import bencode
from p2pmodel.swarm.metainfo import Format
from p2pmodel.swarm.torrents import build, export_indexes, layout_of, parse, webseed_url
from tests.support.swarm_certificates import new_authority
from tests.support.torrent_files import COMMIT, SMALL, Contents, manifest_of, torrent_of, trees_of

KIB = 1 << 10
FORMATS: tuple[Format, ...] = ("v2", "hybrid", "v1")
FLAGS = {"v2": lt.create_torrent.v2_only, "hybrid": 0, "v1": lt.create_torrent.v1_only}

PINNED = {
    "v2": "87dbff70b3a14b56781dc55df4137bcd9f3b0b7228a2f41f6008831b01410e5f",
    "hybrid": "4a33fbddda4fbcd5c7a8c07243bba05a04c4401806d6a7f6f3ec284aa55b3728",
    "v1": "7b97fcbdf917206960c8baa617e49f8396eed5fdf97bda23033985ef2b7c8cb7",
}

# Names in which a file sorts against a folder, which is where orders by whole path and by segment differ.
names = st.sampled_from(["a", "a.b", "a-b", "b", "config.json", "é", "Z", "m.safetensors", ".gitattributes"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
sizes = st.one_of(
    st.sampled_from([0, 1, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 32 * KIB, 64 * KIB, 3 * 32 * KIB]),
    st.integers(0, 200 * KIB),
)
piece_lengths = st.sampled_from([16 * KIB, 32 * KIB, 64 * KIB, 256 * KIB])


@st.composite
def snapshots(draw: st.DrawFn) -> Contents:
    chosen: dict[str, int] = draw(st.dictionaries(paths, sizes, min_size=1, max_size=8))
    files = {p: s for p, s in chosen.items() if not any(other.startswith(p + "/") for other in chosen)}
    if not any(files.values()):
        files[next(iter(files))] = 1
    seed = draw(st.integers(0, 255))
    return {path: hashlib.shake_128(b"%d %s" % (seed, path.encode())).digest(size) for path, size in files.items()}


def built_by_libtorrent(contents: Contents, form: Format, piece_length: int, folder: Path) -> dict[bytes, Any]:
    entries = []
    for path, data in contents.items():
        target = folder / COMMIT / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        entries.append(lt.create_file_entry(f"{COMMIT}/{path}", len(data)))
    torrent = lt.create_torrent(entries, piece_length, FLAGS[form])
    lt.set_piece_hashes(torrent, str(folder))
    generated: dict[bytes, Any] = torrent.generate()
    return generated


def in_order(contents: Contents) -> dict[str, bytes]:
    return {file.path: contents[file.path] for file in manifest_of(contents).files}


def indexes(torrent: bytes) -> dict[str, int]:
    """libtorrent's index of every real file, by path."""
    files = lt.torrent_info(torrent).files()
    real = (i for i in range(files.num_files()) if not files.file_flags(i) & lt.file_flags_t.flag_pad_file)
    return {files.file_path(i).removeprefix(f"{COMMIT}/"): i for i in real}


@pytest.mark.parametrize("form", FORMATS)
@given(contents=snapshots(), piece_length=piece_lengths)
@settings(max_examples=25, deadline=None)
def test_the_info_dictionary_is_libtorrents_own_plus_the_manifest(
    form: Format, contents: Contents, piece_length: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if form == "hybrid":
        contents = filled_up(contents, piece_length)
    theirs = built_by_libtorrent(in_order(contents), form, piece_length, tmp_path_factory.mktemp("files"))
    ours = lt.bdecode(torrent_of(contents, form, piece_length=piece_length))
    ours[b"info"].pop(b"p2pmodel")
    if form == "hybrid" and sorted(contents, key=lambda p: p.encode()) != list(in_order(contents)):
        # libtorrent's builder sorts by the whole path and its own parser then refuses the torrent: not to be copied.
        for key in (b"files", b"pieces"):
            ours[b"info"].pop(key)
            theirs[b"info"].pop(key)
    assert ours[b"info"] == theirs[b"info"]
    assert ours.get(b"piece layers") == theirs.get(b"piece layers")


def filled_up(contents: Contents, piece_length: int) -> Contents:
    """`contents` with the last non-empty file padded to the end of a piece.

    libtorrent adds a pad file even after the last file; we do not (the BEPs do not require it), and it reads both.
    """
    last = next(f.path for f in reversed(manifest_of(contents).files) if f.size)
    return {**contents, last: contents[last] + bytes(-len(contents[last]) % piece_length)}


@pytest.mark.parametrize("form", FORMATS)
@given(contents=snapshots(), piece_length=piece_lengths)
@settings(max_examples=40, deadline=None)
def test_libtorrent_reads_it_with_the_same_hash_indexes_and_pieces(
    form: Format, contents: Contents, piece_length: int
) -> None:
    torrent = torrent_of(contents, form, piece_length=piece_length)
    theirs = lt.torrent_info(torrent)
    by_path = indexes(torrent)
    assert export_indexes(torrent) == (tuple(by_path[path] for path in in_order(contents)), theirs.num_pieces())
    if form == "v1":
        info = torrent[bencode.decode_dict(torrent)[1][b"info"]]
        assert str(theirs.info_hashes().v1) == hashlib.sha1(info).hexdigest()
        return
    ours = parse(torrent)
    assert str(theirs.info_hashes().v2) == ours.info_hash
    assert ours.info_hash_v1 == (str(theirs.info_hashes().v1) if form == "hybrid" else None)
    assert theirs.num_pieces() == ours.layout.piece_count
    files = theirs.files()
    for span, index in zip(ours.layout.spans, ours.file_indexes, strict=True):
        assert by_path[span.path] == index
        assert files.file_size(index) == span.size
        assert not span.size or files.file_offset(index) == span.first_piece * piece_length


@given(contents=snapshots(), piece_length=piece_lengths)
@settings(max_examples=20, deadline=None)
def test_a_built_torrent_parses_to_its_input(contents: Contents, piece_length: int) -> None:
    for form in ("v2", "hybrid"):
        parsed = parse(torrent_of(contents, form, piece_length=piece_length))
        assert parsed.format == form
        assert parsed.manifest == manifest_of(contents)
        assert parsed.trees == trees_of(contents, piece_length)


@given(contents=snapshots(), piece_length=piece_lengths, flip=st.integers(0))
@settings(max_examples=30, deadline=None)
def test_a_piece_is_accepted_whole_and_right_only(contents: Contents, piece_length: int, flip: int) -> None:
    metainfo = parse(torrent_of(contents, piece_length=piece_length))
    for piece in range(metainfo.layout.piece_count):
        place = metainfo.layout.piece_range(piece)
        data = contents[place.span.path][place.offset : place.offset + place.length]
        assert metainfo.accepts(piece, data)
        assert not metainfo.accepts(piece, data[:-1])
        assert not metainfo.accepts(piece, data + b"\0")
        at = flip % len(data)
        assert not metainfo.accepts(piece, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(IndexError):
        metainfo.accepts(metainfo.layout.piece_count, b"x")


@pytest.mark.parametrize("form", FORMATS)
def test_order_of_creation_trackers_and_webseeds_do_not_change_the_info(form: Format) -> None:
    turned = dict(reversed(SMALL.items()))
    a = torrent_of(SMALL, form, trackers=("http://a/announce",))
    b = torrent_of(turned, form, trackers=("udp://b:1",), webseeds=("http://m/org/tiny/resolve/",))
    assert a != b
    assert a[bencode.decode_dict(a)[1][b"info"]] == b[bencode.decode_dict(b)[1][b"info"]]
    assert b"date" not in a


def test_the_info_hash_never_changes() -> None:
    # These are promises to seeders out there: a change of any of them splits their swarms.
    assert hashlib.sha256(torrent_of(SMALL)).hexdigest() == PINNED["v2"]
    assert hashlib.sha256(torrent_of(SMALL, "hybrid")).hexdigest() == PINNED["hybrid"]
    assert hashlib.sha256(torrent_of(SMALL, "v1")).hexdigest() == PINNED["v1"]


def test_trackers_are_tiers_and_webseeds_a_list() -> None:
    torrent = torrent_of(
        SMALL,
        trackers=("http://one/announce", "udp://two:80", "http://one/announce"),
        webseeds=("http://m/org/tiny/resolve/",),
    )
    top = lt.bdecode(torrent)
    assert top[b"announce"] == b"http://one/announce"
    assert top[b"announce-list"] == [[b"http://one/announce"], [b"udp://two:80"]]
    parsed = parse(torrent)
    assert parsed.trackers == ("http://one/announce", "udp://two:80")
    assert parsed.webseeds == ("http://m/org/tiny/resolve/",)


def test_private_follows_the_manifest() -> None:
    assert lt.bdecode(torrent_of(SMALL, private=True))[b"info"][b"private"] == 1
    assert b"private" not in lt.bdecode(torrent_of(SMALL))[b"info"]
    assert parse(torrent_of(SMALL, private=True)).manifest.private


@pytest.mark.parametrize("url", ["ftp://x/", "http://", "javascript:alert(1)", "http://a b/", "http://x:99999/", "é"])
def test_invalid_urls_are_left_out(url: str) -> None:
    with pytest.raises(InvalidInput, match="tracker"):
        torrent_of(SMALL, trackers=(url,))
    with pytest.raises(InvalidInput, match="webseed"):
        torrent_of(SMALL, webseeds=(url,))


def test_a_snapshot_without_bytes_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0 pieces"):
        torrent_of({"empty": b""})


def test_hashes_of_something_else_are_refused() -> None:
    manifest = manifest_of(SMALL)
    trees = trees_of(SMALL, 16 * KIB)
    with pytest.raises(ValueError, match="not that of"):
        build(manifest, trees)
    with pytest.raises(ValueError, match="SHA-1"):
        build(manifest, trees_of(SMALL, piece_length_for(0)), format="hybrid")


@pytest.mark.parametrize(
    ("files", "form", "tail"),
    [
        ({"a": b"1"}, "v2", f"/resolve/{COMMIT}/"),
        ({"a": b"1"}, "hybrid", "/resolve/"),
        ({"a": b"1"}, "v1", "/resolve/"),
        ({"d/a": b"1"}, "v2", "/resolve/"),
        ({"a": b"1", "b": b""}, "v2", "/resolve/"),
    ],
)
def test_only_a_lone_file_in_a_v2_torrent_needs_the_commit_in_its_webseed(
    files: Mapping[str, bytes], form: Format, tail: str
) -> None:
    assert webseed_url("http://hub/prefix/", manifest_of(files), form) == f"http://hub/prefix/org/tiny{tail}"


def test_the_torrent_of_500_gb_is_small() -> None:
    shards = [(f"model-{n:05d}-of-00100.safetensors", 5 * GB) for n in range(100)]
    small = [(f"file-{n}.json", 4321) for n in range(20)]
    files = tuple(
        ManifestFile(path, size, hashlib.sha1(path.encode()).hexdigest(), hashlib.sha256(path.encode()).hexdigest())
        for path, size in shards + small
    )
    manifest = Manifest(RepoId("org/huge"), COMMIT, files)
    layout = layout_of(manifest)
    assert layout.piece_length == piece_length_for(500 * GB)
    trees = {
        span.path: FileTree(os.urandom(HASH), os.urandom(HASH * span.piece_count) if span.piece_count > 1 else b"")
        for span in layout.spans
    }
    assert len(build(manifest, trees)) < 4_000_000


def test_a_private_torrent_has_the_authority_and_the_private_flag() -> None:
    pem = new_authority().pem.decode()
    private, public = parse(torrent_of(SMALL, authority=pem)), parse(torrent_of(SMALL))
    assert (private.authority, public.authority) == (pem, None)
    assert private.info_hash != public.info_hash
    assert private.manifest == public.manifest
    assert b"7:privatei1e" in private.raw
    assert parse(torrent_of(SMALL, authority=pem)).info_hash == private.info_hash


def test_a_private_torrent_is_v2_and_has_two_files_at_least() -> None:
    pem = new_authority().pem.decode()
    with pytest.raises(InvalidInput, match="private swarm"):
        torrent_of(SMALL, "hybrid", authority=pem)
    with pytest.raises(InvalidInput, match="only one file"):
        torrent_of({"model.safetensors": b"x" * 1000}, authority=pem)
    assert parse(torrent_of({"sub/model.safetensors": b"x" * 1000}, authority=pem)).authority == pem


@pytest.mark.parametrize("authority", ["no certificate", "-----BEGIN CERTIFICATE-----" * 2, "é"])
def test_a_torrent_with_another_authority_than_one_certificate_is_refused(authority: str) -> None:
    with pytest.raises(BadTorrent, match="ssl-cert"):
        parse(torrent_of(SMALL, authority=authority))
