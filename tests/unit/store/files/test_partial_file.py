"""A file written in ranges: any order, overlaps, failures, discards, kill -9 and power cuts."""

import asyncio
import errno
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmodel.core.content.layout import BLOCK, MIB
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import LocalResource, NoSpace
from p2pmodel.store.files import partial_file as module
from p2pmodel.store.files import range_set
from p2pmodel.store.files.partial_file import PartialFile, recorded
from tests.support.eventually import PATIENCE
from tests.support.hub_snapshot import snapshot_of
from tests.support.naive_merkle import naive_tree

SIZE = 5 * BLOCK + 11
DATA = random.Random(7).randbytes(SIZE)
FILE = snapshot_of({"model.bin": DATA}).file("model.bin")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "staging" / "0-file.part"


def opened(path: Path, file: ManifestFile = FILE) -> PartialFile:
    return PartialFile.open(path, file, BLOCK)


def on_disk(path: Path) -> bytes:
    """The content, which is as long as the whole file from the start."""
    data = path.read_bytes()
    assert len(data) in {SIZE, 0}
    return data


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".ranges")


async def test_ranges_of_another_writer_are_left_alone_hashed_and_recorded(path: Path) -> None:
    async with opened(path) as partial:
        with path.open("r+b") as other:
            other.write(DATA[:BLOCK])
        partial.note(0, BLOCK)
        await partial.write(0, b"?" * BLOCK)
        await partial.write(BLOCK, DATA[BLOCK : 2 * BLOCK])
        assert partial.missing() == [(2 * BLOCK, SIZE - 2 * BLOCK)]
    assert on_disk(path).startswith(DATA[: 2 * BLOCK])
    async with opened(path) as partial:
        assert partial.missing() == [(2 * BLOCK, SIZE - 2 * BLOCK)]
        await partial.write(2 * BLOCK, DATA[2 * BLOCK :])
        assert await partial.digest() == FILE.etag
    with pytest.raises(ValueError, match="is closed"):
        partial.note(0, BLOCK)


async def test_presumed_ranges_are_there_and_never_on_record(path: Path) -> None:
    async with opened(path) as partial:
        with path.open("r+b") as other:
            other.write(b"?" * BLOCK)
        partial.presume(0, BLOCK)
        await partial.write(BLOCK, DATA[BLOCK:])
        assert partial.missing() == []
        assert await partial.digest() != FILE.etag
    async with opened(path) as partial:
        assert partial.missing() == [(0, BLOCK)]
        assert partial.presumed == 0
        await partial.write(0, DATA[:BLOCK])
        assert await partial.digest() == FILE.etag


async def test_forgotten_ranges_are_no_longer_presumed(path: Path) -> None:
    async with opened(path) as partial:
        partial.presume(0, 2 * BLOCK)
        await partial.forget(0, BLOCK)
        assert partial.presumed == BLOCK
        await partial.write(0, DATA[:BLOCK])
    assert recorded(path, FILE) == [(0, BLOCK)]


async def test_ranges_in_any_order_at_once_give_the_file(path: Path) -> None:
    async with opened(path) as partial:
        assert partial.size == SIZE
        assert partial.missing() == [(0, SIZE)]
        starts = list(range(0, SIZE, 1000))
        random.Random(3).shuffle(starts)
        await asyncio.gather(*(partial.write(at, DATA[at : at + 1000]) for at in starts))
        assert partial.missing() == []
        assert await partial.digest() == FILE.etag
        assert partial.tree == naive_tree(DATA, BLOCK)
    assert on_disk(path) == DATA


STEPS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, 2 * BLOCK), st.booleans()), max_size=15)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_missing_ranges_are_those_never_written(steps: list[tuple[int, int, bool]]) -> None:
    """Overlapping writes with restarts in between; the bytes on disk are always those written first."""
    with tempfile.TemporaryDirectory() as folder:
        partial = opened(Path(folder, "f"))
        model = [False] * SIZE
        for offset, length, restart in steps:
            end = min(offset + length, SIZE)
            partial._write(offset, DATA[offset:end])
            model[offset:end] = [True] * (end - offset)
            if restart:
                partial.close()
                partial = opened(Path(folder, "f"))
            assert [i for at, size in partial.missing() for i in range(at, at + size)] == [
                i for i, there in enumerate(model) if not there
            ]
        for offset, length in partial.missing():
            partial._write(offset, DATA[offset : offset + length])
        assert partial._finish() == FILE.etag
        assert partial.tree == naive_tree(DATA, BLOCK)
        partial.close()
        assert Path(folder, "f").read_bytes() == DATA


async def test_the_hash_keeps_up_with_the_writes(path: Path) -> None:
    data = random.Random(1).randbytes(4 * MIB)
    file = snapshot_of({"m.bin": data}).file("m.bin")
    async with opened(path, file) as partial:
        part = 256 << 10
        order = [*range(part * 4, len(data), part), *range(0, part * 4, part)]
        for at in order:
            await partial.write(at, data[at : at + part])
            if at == 0:
                assert partial._hasher.hashed == part
        # The first range came last: its write paid for one more range, and `digest` hashes the rest.
        assert partial._hasher.hashed == 5 * part
        assert await partial.digest() == file.etag
    async with opened(path.with_name("in order"), file) as partial:
        for at in range(0, len(data), part):
            await partial.write(at, data[at : at + part])
            assert partial._hasher.hashed == at + part


async def test_a_write_is_never_done_twice(path: Path) -> None:
    """A late answer for a range that is complete must not change bytes that are hashed already."""
    async with opened(path) as partial:
        await partial.write(0, DATA[:BLOCK])
        await partial.write(0, bytes(2 * BLOCK))
        assert on_disk(path).startswith(DATA[:BLOCK] + bytes(BLOCK))
        assert partial.missing() == [(2 * BLOCK, SIZE - 2 * BLOCK)]


async def test_of_two_writes_at_once_one_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first_inside, go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def slow(descriptor: int, data: memoryview, offset: int) -> int:
        if bytes(data[:1]) == b"A":
            first_inside.set()
            assert go_on.wait(PATIENCE)
        return real(descriptor, data, offset)

    monkeypatch.setattr(module.os, "pwrite", slow)
    async with opened(path) as partial:
        first = asyncio.create_task(partial.write(0, b"A" * 100))
        await asyncio.to_thread(first_inside.wait, 10)
        await partial.write(0, b"B" * 200)
        assert partial.missing() == [(0, 100), (200, SIZE - 200)]
        go_on.set()
        await first
    assert on_disk(path).startswith(b"A" * 100 + b"B" * 100)


async def test_a_failed_write_leaves_its_range_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as partial:
        await partial.write(100, DATA[100:200])
        real = os.pwrite

        def full(descriptor: int, data: memoryview, offset: int) -> int:
            if offset >= 200:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data, offset)

        monkeypatch.setattr(module.os, "pwrite", full)
        with pytest.raises(NoSpace, match="no space left"):
            await partial.write(0, DATA[:300])
        assert partial.missing() == [(200, SIZE - 200)]
        monkeypatch.setattr(module.os, "pwrite", real)
        await partial.write(0, DATA)
        assert await partial.digest() == FILE.etag


async def test_short_writes_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(module.os, "pwrite", lambda fd, data, offset: real(fd, data[:777], offset))
    async with opened(path) as partial:
        await partial.write(0, DATA)
        assert await partial.digest() == FILE.etag


async def test_discarding_forgets_everything(path: Path) -> None:
    async with opened(path) as partial:
        await partial.write(0, bytes(SIZE))
        assert await partial.digest() != FILE.etag
        await partial.discard()
        assert partial.missing() == [(0, SIZE)]
        assert on_disk(path), "a reader that has mapped it must not lose its pages"
        assert not sidecar(path).exists()
        await partial.write(0, DATA)
        assert await partial.digest() == FILE.etag
        assert partial.tree == naive_tree(DATA, BLOCK)


async def test_discarding_waits_for_writes_under_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, go_on = threading.Event(), threading.Event()
    real = os.pwrite

    def slow(descriptor: int, data: memoryview, offset: int) -> int:
        inside.set()
        assert go_on.wait(PATIENCE)
        return real(descriptor, data, offset)

    async with opened(path) as partial:
        monkeypatch.setattr(module.os, "pwrite", slow)
        writing = asyncio.create_task(partial.write(0, b"bad"))
        await asyncio.to_thread(inside.wait, 10)
        writing.cancel()
        discarding = asyncio.create_task(partial.discard())
        await asyncio.sleep(0.05)
        assert not discarding.done()
        go_on.set()
        await discarding
        assert partial.missing() == [(0, SIZE)]
        assert on_disk(path)


async def test_it_resumes_after_a_restart(path: Path) -> None:
    async with opened(path) as partial:
        await partial.write(0, DATA[:3000])
        await partial.write(4000, DATA[4000:])
    async with opened(path) as partial:
        assert partial.missing() == [(3000, 1000)]
        await partial.write(3000, DATA[3000:4000])
        assert await partial.digest() == FILE.etag
        assert partial.tree == naive_tree(DATA, BLOCK)
    async with opened(path) as partial:
        assert partial.missing() == []
        assert await partial.digest() == FILE.etag


async def test_on_a_slow_link_received_ranges_are_recorded_by_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(path) as partial:
        await partial.write(0, DATA[:1000])
        assert not sidecar(path).exists()
        monkeypatch.setattr(module, "RECORD_SECONDS", 0.0)
        await partial.write(1000, DATA[1000:2000])
        async with opened(path) as after_a_kill:
            assert after_a_kill.missing() == [(2000, SIZE - 2000)]


async def test_after_a_power_cut_only_synced_ranges_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECORD_EVERY", 1)
    monkeypatch.setattr(module, "SYNC_EVERY", 3000)
    async with opened(path) as partial:
        await partial.write(0, DATA[:3000])
        await partial.write(3000, DATA[3000:5000])
    monkeypatch.setattr(range_set, "boot_id", lambda: "another boot")
    async with opened(path) as partial:
        assert partial.missing() == [(3000, SIZE - 3000)]


async def test_a_record_of_other_content_or_of_a_lost_file_is_not_believed(path: Path) -> None:
    async with opened(path) as partial:
        await partial.write(0, DATA)
    other = ManifestFile("model.bin", SIZE, "b" * 40)
    async with opened(path, other) as partial:
        assert partial.missing() == [(0, SIZE)]
    os.truncate(path, SIZE - 1)
    for _ in range(2):  # the second time it has its full length again
        async with opened(path) as partial:
            assert partial.missing() == [(0, SIZE)]
    async with opened(path) as partial:
        await partial.write(0, DATA)
    os.unlink(path)  # noqa: PTH108
    for _ in range(2):
        async with opened(path) as partial:
            assert partial.missing() == [(0, SIZE)]


@pytest.mark.parametrize("ranges", ["x", 1, None, [1], [[1]], [["a", "b"]], [[-5, 3]], [[0, SIZE + 1]], {"a": 1}])
async def test_a_damaged_record_counts_as_none(path: Path, ranges: object) -> None:
    async with opened(path) as partial:
        await partial.write(0, DATA)
    record = json.loads(sidecar(path).read_bytes())
    sidecar(path).write_text(json.dumps(record | {"done": ranges}))
    async with opened(path) as partial:
        assert partial.missing() == [(0, SIZE)]
    sidecar(path).write_bytes(b"{")
    async with opened(path) as partial:
        assert partial.missing() == [(0, SIZE)]


async def test_an_empty_file_is_complete_at_once(path: Path) -> None:
    file = snapshot_of({"empty": b""}).file("empty")
    async with opened(path, file) as partial:
        assert partial.missing() == []
        assert await partial.digest() == file.etag
        assert partial.tree is None
    assert on_disk(path) == b""


async def test_misuse_is_an_error_of_the_caller(path: Path) -> None:
    partial = opened(path)
    with pytest.raises(ValueError, match="is not complete"):
        await partial.digest()
    for offset, data in ((-1, b"x"), (SIZE, b"x"), (0, DATA + b"x")):
        with pytest.raises(ValueError, match=f"of {SIZE} bytes"):
            await partial.write(offset, data)
    partial.close()
    partial.close()
    with pytest.raises(ValueError, match="is closed"):
        await partial.write(0, b"x")
    with pytest.raises(ValueError, match="is closed"):
        await partial.discard()


async def test_a_folder_that_is_a_file_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "staging").write_text("oops")
    with pytest.raises(LocalResource, match=r"(not a directory|file exists)"):
        opened(tmp_path / "staging" / "f")


async def test_a_file_cut_behind_our_back_is_noticed(path: Path) -> None:
    async with opened(path) as partial:
        await partial.write(BLOCK, DATA[BLOCK:])
        await partial.write(0, DATA[:BLOCK])
        os.truncate(path, 100)
        with pytest.raises(LocalResource, match="became shorter"):
            await partial.digest()


CHILD = """
import random, sys
from pathlib import Path
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.files import partial_file
partial_file.RECORD_EVERY = 50_000
data = random.Random(5).randbytes(3_000_000)
file = ManifestFile("f", len(data), "a" * 40)
sink = partial_file.PartialFile.open(Path(sys.argv[1]), file, 1 << 14)
starts = list(range(0, len(data), 10_000))
random.Random(6).shuffle(starts)
for at in starts:
    sink._write(at, data[at : at + 10_000])
    print(at, flush=True)
"""


@pytest.mark.parametrize("after", [3, 60, 150])
def test_after_kill_9_every_recorded_byte_is_right_and_little_is_lost(path: Path, after: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    for _ in range(after):
        assert child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    written = after + len(child.stdout.readlines())
    child.wait()
    child.stdout.close()
    data = random.Random(5).randbytes(3_000_000)
    partial = opened(path, ManifestFile("f", len(data), "a" * 40))
    missing = partial.missing()
    partial.close()
    there = path.read_bytes()
    for (at, size), (following, _) in zip([(0, 0), *missing], [*missing, (len(data), 0)], strict=True):
        assert there[at + size : following] == data[at + size : following]
    held = len(data) - sum(size for _, size in missing)
    assert written * 10_000 - 60_000 <= held <= (written + 1) * 10_000


async def test_a_forgotten_range_is_missing_and_hashed_again(path: Path) -> None:
    wrong = bytes(1000)
    async with opened(path) as partial:
        await partial.write(0, wrong)
        await partial.write(1000, DATA[1000:])
        assert await partial.digest() != FILE.etag
        assert await partial.read(500, 1000) == wrong[500:] + DATA[1000:1500]
        await partial.forget(0, 1000)
        assert partial.missing() == [(0, 1000)]
    async with opened(path) as partial:
        assert partial.missing() == [(0, 1000)], "also after a restart"
        await partial.write(0, DATA[:1000])
        assert await partial.digest() == FILE.etag
        assert partial.tree == naive_tree(DATA, BLOCK)
