"""Every fault of a .torrent raises BadTorrent with one clear line."""

import hashlib
import random
from collections.abc import Callable
from typing import Any

import libtorrent as lt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.errors import BadTorrent
from p2pmodel.swarm import bencode, parsing
from p2pmodel.swarm.parsing import export_indexes, parse
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

KIB = 1 << 10
GOOD = torrent_of(SMALL, piece_length=64 * KIB, trackers=("http://t/announce",), webseeds=("http://m/r/",))
HYBRID = torrent_of(SMALL, "hybrid", piece_length=64 * KIB)

Plain = dict[bytes, Any]


def changed(change: Callable[[Plain, Plain], object], torrent: bytes = GOOD) -> bytes:
    """`torrent` after `change(top, info)`."""
    top = lt.bdecode(torrent)
    change(top, top[b"info"])
    return bencode.encode(top)


def put(where: Plain, key: bytes, value: Any) -> None:
    where[key] = value


def tree(info: Plain) -> Plain:
    found: Plain = info[b"file tree"]
    return found


def manifest(info: Plain) -> Plain:
    found: Plain = info[b"p2pmodel"]
    return found


def leaf(info: Plain, name: bytes = b"model.safetensors") -> Plain:
    found: Plain = tree(info)[name][b""]
    return found


def refusal(data: bytes) -> str:
    with pytest.raises(BadTorrent) as caught:
        parse(data)
    line = str(caught.value)
    assert "\n" not in line
    assert line.isprintable()
    assert caught.value.hint
    return line


def parse_or_refuse(data: bytes) -> None:
    line = "fine"
    try:
        parse(data)
    except BadTorrent as error:
        line = str(error)
    assert line.isprintable()


def test_the_good_ones_are_good() -> None:
    assert parse(GOOD).format == "v2"
    assert parse(HYBRID).format == "hybrid"
    assert parse(GOOD).raw is GOOD
    assert parse(changed(lambda top, info: put(top, b"comment", b"ignored"))).info_hash == parse(GOOD).info_hash


def test_the_info_hash_is_that_of_the_original_bytes() -> None:
    start, end = GOOD.index(b"4:info") + len(b"4:info"), GOOD.index(b"12:piece layers")
    assert parse(GOOD).info_hash == hashlib.sha256(GOOD[start:end]).hexdigest()


@pytest.mark.parametrize("keep", [0, 1, 2, 10, 100, len(GOOD) // 2, len(GOOD) - 1])
def test_cut_off(keep: int) -> None:
    assert f"it is cut off (the data ends at byte {keep}" in refusal(GOOD[:keep])


def test_not_a_torrent() -> None:
    assert "not canonical bencode (not a dictionary at byte 0)" in refusal(b"<!DOCTYPE html><html>")
    assert "unexpected data after the end" in refusal(GOOD + b"\n")
    assert "its 'info' is missing" in refusal(b"de")


def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_TORRENT_SIZE", len(GOOD))
    parse(GOOD)
    monkeypatch.setattr(parsing, "MAX_TORRENT_SIZE", len(GOOD) - 1)
    assert "bytes long, more than" in refusal(GOOD)


def test_v1_only_has_the_hint_to_use_v2() -> None:
    line = refusal(torrent_of(SMALL, "v1"))
    assert line.startswith("this .torrent is v1 only")
    assert "use v2: create one with 'p2pmodel torrent create REPO'" in line


def test_made_by_another_program() -> None:
    line = refusal(changed(lambda top, info: info.pop(b"p2pmodel")))
    assert "was not made by p2pmodel" in line
    assert "p2pmodel torrent create REPO" in line


def rename(info: Plain, new: bytes, old: bytes = b"config.json") -> None:
    """Rename a top-level file consistently in tree and manifest."""
    tree(info)[new] = tree(info).pop(old)
    next(f for f in manifest(info)[b"files"] if f[b"path"] == old)[b"path"] = new


FAULTS: list[tuple[Callable[[Plain, Plain], object], str]] = [
    # paths
    (lambda top, info: rename(info, b".."), "the path '..' is not safe"),
    (lambda top, info: put(tree(info), b"..", {b"x": tree(info).pop(b"config.json")}), "the path '..' is not safe"),
    (lambda top, info: rename(info, b"/etc/passwd"), "the path '/etc/passwd' is not safe"),
    (lambda top, info: rename(info, b"a/b"), "'a/b' is neither a file nor a folder"),
    (lambda top, info: rename(info, b"a\0b"), "is not safe"),
    (lambda top, info: rename(info, b"a" * 256), "is not safe"),
    (lambda top, info: rename(info, b"\xff\xfe"), "not valid UTF-8"),
    (lambda top, info: put(tree(info), b"\xff", tree(info).pop(b"config.json")), "a path in it is not valid UTF-8"),
    (lambda top, info: manifest(info)[b"files"].append(manifest(info)[b"files"][0]), "occurs twice"),
    # the tree's nodes
    (lambda top, info: put(tree(info), b"x", {}), "'x' is neither a file nor a folder"),
    (lambda top, info: put(tree(info), b"x", 7), "'x' is neither a file nor a folder"),
    (lambda top, info: put(tree(info)[b"config.json"], b"y", {b"": {}}), "is both a file and a folder"),
    (lambda top, info: put(leaf(info), b"attr", b"l"), "'model.safetensors' is a symlink"),
    (lambda top, info: put(leaf(info), b"symlink path", [b"x"]), "'model.safetensors' is a symlink"),
    (lambda top, info: put(leaf(info), b"mtime", 1), "unknown keys"),
    (lambda top, info: put(leaf(info), b"length", b"1"), "malformed"),
    (lambda top, info: put(leaf(info), b"pieces root", b"short"), "malformed"),
    (lambda top, info: leaf(info).pop(b"pieces root"), "malformed"),
    (lambda top, info: put(leaf(info, b"empty.txt"), b"pieces root", bytes(32)), "malformed"),
    (lambda top, info: put(tree(info)[b"config.json"], b"", 1), "'' is missing or malformed"),
    # manifest against the rest
    (lambda top, info: put(info, b"name", b"f" * 40), f"its name is not the commit {COMMIT}"),
    (lambda top, info: put(manifest(info), b"commit", b"main"), "'main' is not a commit id"),
    (lambda top, info: put(manifest(info), b"repo", b"../x"), "'../x' is not a repository id"),
    (lambda top, info: manifest(info).pop(b"files"), "the manifest is malformed"),
    (lambda top, info: put(manifest(info), b"files", 3), "the manifest is malformed"),
    (lambda top, info: put(manifest(info), b"files", [b"x"]), "the manifest is malformed"),
    (lambda top, info: put(manifest(info)[b"files"][1], b"size", b"80"), "the manifest is malformed"),
    (lambda top, info: put(manifest(info)[b"files"][1], b"size", -1), "impossible size"),
    (lambda top, info: put(manifest(info)[b"files"][1], b"git_oid", b"zz"), "malformed hash"),
    (lambda top, info: put(manifest(info)[b"files"][1], b"size", 81), "contradicts its file tree about 'config.json'"),
    (lambda top, info: manifest(info)[b"files"].pop(), "contradicts its file tree about 'nested/a b/ünï.json'"),
    (lambda top, info: tree(info).pop(b"nested"), "contradicts its file tree about 'nested/a b/ünï.json'"),
    (lambda top, info: put(info, b"p2pmodel", b"x"), "its 'p2pmodel' is missing or malformed"),
    (lambda top, info: put(info, b"private", 1), "its private flag contradicts"),
    (lambda top, info: put(manifest(info), b"private", 1), "its private flag contradicts"),
    # numbers
    (lambda top, info: put(info, b"meta version", 3), "its meta version is not 2"),
    (lambda top, info: put(info, b"piece length", 65537), "its piece length is not a power of two"),
    (lambda top, info: put(info, b"piece length", 8 * KIB), "its piece length is not a power of two"),
    (lambda top, info: put(info, b"piece length", 1 << 28), "its piece length is not a power of two"),
    (lambda top, info: put(info, b"piece length", 0), "its piece length is not a power of two"),
    (lambda top, info: put(info, b"piece length", b"x"), "its piece length is not a power of two"),
    (lambda top, info: info.pop(b"piece length"), "its info dictionary lacks 'piece length'"),
    (lambda top, info: put(info, b"name.utf-8", b"../x"), "its info dictionary has an unknown 'name.utf-8'"),
    (lambda top, info: put(info, b"files", []), "its info dictionary lacks 'pieces'"),
    # layers
    (lambda top, info: top.pop(b"piece layers"), "its 'piece layers' is missing"),
    (lambda top, info: top[b"piece layers"].pop(leaf(info)[b"pieces root"]), "piece layer of 'model.safetensors'"),
    (lambda top, info: put(info, b"piece length", 128 * KIB), "piece layer of 'model.safetensors' is missing or wrong"),
    (lambda top, info: put(top[b"piece layers"], leaf(info)[b"pieces root"], bytes(512)), "is missing or wrong"),
    (lambda top, info: put(top[b"piece layers"], leaf(info)[b"pieces root"], bytes(513)), "is missing or wrong"),
    (lambda top, info: put(top[b"piece layers"], leaf(info)[b"pieces root"], 5), "is missing or wrong"),
    (lambda top, info: put(leaf(info), b"pieces root", bytes(32)), "is missing or wrong"),
    (lambda top, info: put(top[b"piece layers"], bytes(32), bytes(64)), "a piece layer of no file"),
    # where to get it from
    (lambda top, info: put(top, b"announce", b"wss://t"), "the tracker 'wss://t' is not a URL of"),
    (lambda top, info: put(top, b"announce", 1), "its tracker list is malformed"),
    (lambda top, info: put(top, b"announce-list", [b"http://t"]), "its announce-list is malformed"),
    (lambda top, info: put(top, b"announce-list", [[b"file:///etc/passwd"]]), "the tracker 'file:///etc/passwd'"),
    (lambda top, info: put(top, b"url-list", b"ftp://m/"), "the webseed 'ftp://m/' is not a URL of http, https"),
    (lambda top, info: put(top, b"url-list", [b"http://m/"] * 1000), "its webseed list is malformed or too long"),
    (lambda top, info: put(top, b"url-list", {}), "its webseed list is malformed"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS, ids=[f"{n}-{m[:40]}" for n, (_, m) in enumerate(FAULTS)])
def test_each_fault_is_refused_by_name(change: Callable[[Plain, Plain], object], message: str) -> None:
    assert message in refusal(changed(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda top, info: info[b"files"].reverse(),
        lambda top, info: put(info[b"files"][0], b"path.utf-8", [b"..", b"x"]),
        lambda top, info: info[b"files"].pop(),
        lambda top, info: put(info, b"pieces", info[b"pieces"][:-20]),
        lambda top, info: put(info, b"pieces", 5),
    ],
)
def test_a_hybrid_with_contradicting_halves(change: Callable[[Plain, Plain], object]) -> None:
    assert "its v1 and v2 parts contradict each other" in refusal(changed(change, HYBRID))


def test_files_of_equal_content_share_a_layer() -> None:
    data = bytes(range(256)) * 1024
    parsed = parse(torrent_of({"a.bin": data, "b.bin": data, "c.bin": data[:-1]}, piece_length=64 * KIB))
    assert parsed.trees["a.bin"] is parsed.trees["b.bin"]
    assert parsed.trees["a.bin"] != parsed.trees["c.bin"]


def test_a_shared_layer_must_fit_every_file_that_claims_it() -> None:
    data = bytes(range(256)) * 1024

    def claim(top: Plain, info: Plain) -> None:
        leaf(info, b"b.bin")[b"pieces root"] = leaf(info, b"a.bin")[b"pieces root"]
        del top[b"piece layers"][victim]

    torrent = torrent_of({"a.bin": data, "b.bin": data + data}, piece_length=64 * KIB)
    victim = leaf(lt.bdecode(torrent)[b"info"], b"b.bin")[b"pieces root"]
    assert "the piece layer of 'b.bin' is missing or wrong" in refusal(changed(claim, torrent))


@given(
    st.binary(max_size=200) | st.builds(lambda n, b: GOOD[:n] + b + GOOD[n:], st.integers(0, len(GOOD)), st.binary())
)
@settings(max_examples=200, deadline=None)
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    parse_or_refuse(data)


junk = st.recursive(
    st.integers(-2, 2**65) | st.binary(max_size=8) | st.sampled_from([b"..", b"", bytes(32), COMMIT.encode()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.binary(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(seed=st.integers(0, 2**32), value=junk, torrent=st.sampled_from([GOOD, HYBRID]))
@settings(max_examples=300, deadline=None)
def test_any_value_anywhere_parses_or_is_refused(seed: int, value: Any, torrent: bytes) -> None:
    """Walk to a random place of a good torrent and put something else there."""
    chance = random.Random(seed)
    top = lt.bdecode(torrent)
    node: Any = top
    while True:
        key: Any = chance.choice(list(node)) if isinstance(node, dict) else chance.randrange(len(node))
        child = node[key]
        if not isinstance(child, dict | list) or not child or chance.random() < 0.2:
            break
        node = child
    node[key] = value
    parse_or_refuse(bencode.encode(top))


def test_export_indexes_refuses_other_data() -> None:
    for data in (b"<html>", b"de", changed(lambda top, info: info.pop(b"p2pmodel"))):
        with pytest.raises(BadTorrent):
            export_indexes(data)
