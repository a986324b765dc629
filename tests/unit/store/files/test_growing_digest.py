"""The hash of a file that is still being written: in order, as far as it is written, and right in the end."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import LocalResource
from p2pmodel.store import verify
from p2pmodel.store.verify import GrowingDigest, VouchedDigest
from tests.support.hub_snapshot import snapshot_of

BLOCK = 1 << 16
CONTENT = os.urandom(6 * BLOCK + 123)
FILE: ManifestFile = snapshot_of({"model.safetensors": CONTENT}).file("model.safetensors")


def put(path: Path, start: int, end: int, content: bytes = CONTENT) -> None:
    """Write a range, with holes at ranges not written yet."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, content[start:end], start)
    finally:
        os.close(descriptor)


def exhaust(digest: GrowingDigest, final: int = len(CONTENT)) -> None:
    while digest.advance(final):
        pass


@given(order=st.permutations(range(7)))
def test_blocks_in_any_order_give_the_hash_and_only_the_written_beginning_is_read(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("growing") / "staged"
    digest = GrowingDigest(path, FILE)
    written: set[int] = set()
    for block in order:
        put(path, block * BLOCK, (block + 1) * BLOCK)
        written.add(block)
        exhaust(digest)
        prefix = next(b for b in range(8) if b not in written)
        assert digest.hashed == min(prefix * BLOCK, len(CONTENT))
    assert digest.sealed() == FILE.etag


def test_only_final_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "staged"
    path.write_bytes(CONTENT)
    digest = GrowingDigest(path, FILE)
    exhaust(digest, final=BLOCK)
    assert digest.hashed == BLOCK
    exhaust(digest, final=0)
    assert digest.hashed == BLOCK


def test_a_file_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "staged"
    digest = GrowingDigest(path, FILE)
    assert not digest.advance(len(CONTENT))
    path.write_bytes(CONTENT)
    exhaust(digest)
    assert digest.sealed() == FILE.etag


def test_one_call_hashes_a_bounded_part_and_flushes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(verify, "QUANTUM", BLOCK)
    monkeypatch.setattr(verify, "SYNC_EVERY", 2 * BLOCK)
    path = tmp_path / "staged"
    path.write_bytes(CONTENT)
    digest = GrowingDigest(path, FILE)
    monkeypatch.setattr(verify, "sync", lambda _path: synced.append(digest.hashed))
    assert [digest.advance(len(CONTENT)) for _ in range(7)] == [True] * 6 + [False]
    assert synced == [2 * BLOCK, 4 * BLOCK, 6 * BLOCK]
    digest.sealed()
    assert synced[-1] == len(CONTENT)


def test_a_block_that_was_replaced_after_it_was_read_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "staged"
    put(path, 0, BLOCK, os.urandom(BLOCK))
    digest = GrowingDigest(path, FILE)
    exhaust(digest)
    path.write_bytes(CONTENT)
    exhaust(digest)
    assert digest.sealed() == FILE.etag


def test_wrong_content_has_its_own_hash(tmp_path: Path) -> None:
    path = tmp_path / "staged"
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    path.write_bytes(wrong)
    digest = GrowingDigest(path, FILE)
    exhaust(digest)
    assert digest.sealed() == snapshot_of({"model.safetensors": wrong}).file("model.safetensors").etag


def test_calls_from_several_threads_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "QUANTUM", 1000)
    path = tmp_path / "staged"
    path.write_bytes(CONTENT)
    digest = GrowingDigest(path, FILE)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(exhaust, digest) for _ in range(4)]:
            done.result()
    assert digest.sealed() == FILE.etag


def test_a_file_that_may_not_be_read_is_an_error_of_this_machine(tmp_path: Path) -> None:
    with pytest.raises(LocalResource):
        GrowingDigest(tmp_path, FILE).advance(len(CONTENT))


def test_a_vouched_file_is_synced_from_time_to_time_and_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(verify, "SYNC_EVERY", 2 * BLOCK)
    monkeypatch.setattr(verify, "sync", synced.append)
    digest = VouchedDigest(tmp_path / "absent", FILE)
    for final in range(BLOCK, 6 * BLOCK + 1, BLOCK):
        assert not digest.advance(final)
        assert digest.hashed == final
    assert len(synced) == 3
    assert digest.sealed() == FILE.etag
    assert len(synced) == 4
