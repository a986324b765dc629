"""Files that are read while they grow: the readable bytes, and an end to every wait."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from p2pmodel.core.content.layout import MIB
from p2pmodel.errors import NotYet, Unavailable
from p2pmodel.store import growing_file
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.partial_file import PartialFile
from p2pmodel.store.growing_file import (
    HOLD_BACK,
    GrowingFile,
    GrowingFileReader,
    GrowingFiles,
    GrowingFileSink,
    GrowingFileWriter,
)
from tests.support.eventually import eventually
from tests.support.hub_snapshot import snapshot_of

T = TypeVar("T")
CONTENT = os.urandom(3 * HOLD_BACK)
SNAPSHOT = snapshot_of({"model.safetensors": CONTENT, "empty.txt": b""})
FILE = SNAPSHOT.file("model.safetensors")


class Rig:
    """A growing file of which `end` bytes are on disk at `path`."""

    def __init__(self, root: Path) -> None:
        self.repo = HubCache(root).repo(SNAPSHOT.manifest.repo)
        self.growing = GrowingFiles().file(self.repo, FILE)
        self.path = root / "partial"
        self.path.touch()
        self.end = 0
        self.requested: list[int] = []

    def written(self, *, on_request: bool = False) -> Any:
        request: Callable[[int], None] | None = self.requested.append if on_request else None
        return self.growing.written(self.path, lambda _: self.end, request)

    def publish(self) -> None:
        blob = self.repo.blob_path(FILE)
        blob.parent.mkdir(parents=True)
        blob.write_bytes(CONTENT)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def waiting(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """`work` as a task that has had every chance to end."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0.05)
    assert not task.done()
    return task


async def test_a_reader_begins_once_there_is_a_file(rig: Rig) -> None:
    opening = await waiting(rig.growing.open())
    with rig.written(), await opening as reader:
        assert reader.file.name == str(rig.path)


async def test_a_reader_waits_for_a_file_that_is_written_on_request(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_file, "OPEN_POLL", 0.01)
    rig.path.unlink()
    with rig.written(on_request=True):
        opening = await waiting(rig.growing.open())
        await eventually(lambda: set(rig.requested) == {0}, what="the request")
        rig.path.touch()
        with await opening:
            pass


async def test_progress_wakes_readers_and_the_end_is_held_back(rig: Rig) -> None:
    with rig.written() as writer, await rig.growing.open() as reader:
        reading = await waiting(reader.ready(0))
        rig.end = 10
        writer.progressed()
        assert await reading == 10
        rig.end = FILE.size
        assert await reader.ready(10) == FILE.size - HOLD_BACK
        reading = await waiting(reader.ready(FILE.size - HOLD_BACK))
        writer.verified()
        assert await reading == FILE.size


async def test_a_byte_that_is_waited_for_is_requested_again_and_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growing_file, "POLL", 0.01)
    with rig.written(on_request=True), await rig.growing.open() as reader:
        reading = await waiting(reader.ready(7))
        assert len(rig.requested) > 1
        assert set(rig.requested) == {7}
        rig.end = 8
        assert await reading == 8


async def test_content_is_marked_corrupt_before_a_reader_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disconnected client reconnects at once: the mark must be on disk by then."""
    marked: list[bool] = []
    mark = rig.repo.mark_corrupt

    def slow_mark(file: Any) -> None:
        marked.append(reading.done())
        mark(file)

    monkeypatch.setattr(rig.repo, "mark_corrupt", slow_mark)
    with rig.written() as writer, await rig.growing.open() as reader:
        reading = await waiting(reader.ready(0))
        await writer.corrupt()
        with pytest.raises(Unavailable, match="wrong bytes"):
            await reading
        assert marked == [False]
        assert rig.repo.recently_corrupt(FILE)
        with await rig.growing.open() as later:
            writer.verified()
            assert await later.ready(0) == FILE.size
        with pytest.raises(Unavailable, match="wrong bytes"):
            await reader.ready(0)


async def test_a_failure_ends_waiting_and_opening_readers(rig: Rig) -> None:
    opening = await waiting(rig.growing.open())
    rig.growing.fail(NotYet("later"))
    with pytest.raises(NotYet):
        await opening
    with rig.written(), await rig.growing.open() as reader:
        rig.end = 5
        reading = await waiting(reader.ready(5))
        rig.growing.fail(NotYet("later"))
        with pytest.raises(NotYet):
            await reading
        assert await reader.ready(0) == 5, "the present bytes can still be read"
        with await rig.growing.open() as later:
            assert await later.ready(0) == 5, "an earlier failure does not fail a later reader"


async def test_a_later_writer_to_the_same_path_is_followed(rig: Rig) -> None:
    with rig.written(), await rig.growing.open() as reader:
        pass
    with rig.written() as writer:
        rig.end = 3
        writer.progressed()
        assert reader.available(0) == 3


async def test_an_earlier_verification_does_not_apply_to_a_later_writer(rig: Rig) -> None:
    with rig.written() as writer, await rig.growing.open() as before:
        writer.verified()
    with rig.written(), await rig.growing.open() as reader:
        assert before.available(0) == FILE.size
        assert reader.available(0) == 0


async def test_a_published_blob_is_read_only_if_it_is_the_opened_file(rig: Rig) -> None:
    with rig.written(), await rig.growing.open() as other:
        reading = await waiting(other.ready(0))
        rig.publish()
        rig.growing.published()
        with pytest.raises(Unavailable, match="another process"):
            await reading
    rig.path.unlink()
    rig.path.hardlink_to(rig.repo.blob_path(FILE))
    with rig.written(), await rig.growing.open() as same:
        reading = await waiting(same.ready(0))
        rig.growing.published()
        assert await reading == FILE.size
    opening = await waiting(rig.growing.open())
    rig.growing.published()
    with await opening as late:
        assert await late.ready(0) == FILE.size
        assert late.file.read() == CONTENT


async def test_a_published_blob_that_was_removed_is_unavailable(rig: Rig) -> None:
    opening = await waiting(rig.growing.open())
    rig.growing.published()
    with pytest.raises(Unavailable, match="removed"):
        await opening


async def test_an_empty_file_is_whole_once_it_is_verified(rig: Rig) -> None:
    growing = GrowingFiles().file(rig.repo, SNAPSHOT.file("empty.txt"))
    with growing.written(rig.path, lambda _: 0) as writer, await growing.open() as reader:
        writer.verified()
        assert await reader.ready(0) == 0


async def test_there_is_one_growing_file_per_content_for_as_long_as_it_is_used(rig: Rig) -> None:
    files = GrowingFiles()
    growing = files.file(rig.repo, FILE)
    assert files.file(rig.repo, FILE) is growing
    assert files.file(rig.repo, SNAPSHOT.file("empty.txt")) is not growing
    before = id(growing)
    with growing.written(rig.path, lambda _: 0):
        del growing
        assert id(files.file(rig.repo, FILE)) == before
    assert not files._files


async def test_the_sink_reports_what_happens_to_the_partial_file(rig: Rig) -> None:
    async with PartialFile.open(rig.path, FILE, MIB) as partial:
        with rig.growing.written(rig.path, partial.available) as writer, await rig.growing.open() as reader:
            sink = GrowingFileSink(partial, writer)
            assert (sink.size, sink.missing()) == (FILE.size, [(0, FILE.size)])
            reading = await waiting(reader.ready(0))
            await sink.write(0, CONTENT[:9])
            assert await reading == 9
            assert await sink.read(2, 3) == CONTENT[2:5]
            await sink.forget(0, 9)
            with pytest.raises(Unavailable, match="wrong bytes"):
                await reader.ready(0)
            await sink.write(0, CONTENT)
            assert await sink.digest() == FILE.etag
            with await rig.growing.open() as later:
                await sink.discard()
                with pytest.raises(Unavailable, match="wrong bytes"):
                    await later.ready(0)


# -- against a model -------------------------------------------------------------------------------------------


class _Follower:
    """A reader, the bytes it reads in the model, and the state of the model."""

    def __init__(self, reader: GrowingFileReader, content: "_ModelContent") -> None:
        self.reader = reader
        self.content = content
        self.outcome: str | None = None


class _ModelContent:
    """What was written by one or more writers to the same path: readers of one generation share it."""

    def __init__(self, path: int) -> None:
        self.path = path
        self.end = 0
        self.verified = False
        self.corrupt = False


class _End:
    """The end of the bytes at the path of one writer, and of those that continue its file."""

    value = 0


class GrowingFileMachine(RuleBasedStateMachine):
    """One writer at a time at one of two paths; readers come at any time; the outcome ends those that are there."""

    readers: Bundle[_Follower] = Bundle("readers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = ExitStack()
        root = Path(self.stack.enter_context(TemporaryDirectory()))
        self.paths = [root / "0", root / "1"]
        for path in self.paths:
            path.touch()
        self.repo = HubCache(root).repo(SNAPSHOT.manifest.repo)
        self.growing: GrowingFile = GrowingFiles().file(self.repo, FILE)
        self.writer: GrowingFileWriter | None = None
        self.scope = ExitStack()
        self.latest: _ModelContent | None = None
        self.end = _End()
        self.followers: list[_Follower] = []
        self.marked = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @precondition(lambda self: self.writer is None)
    @rule(path=st.integers(0, 1))
    def begin(self, path: int) -> None:
        latest = self.latest
        if latest is None or latest.path != path or latest.verified:
            latest = self.latest = _ModelContent(path)
            self.end = _End()
        end = self.end
        self.writer = self.scope.enter_context(self.growing.written(self.paths[path], lambda _offset: end.value))

    @precondition(lambda self: self.writer is not None)
    @rule(length=st.integers(1, 2 * HOLD_BACK))
    def write(self, length: int) -> None:
        assert self.latest is not None
        assert self.writer is not None
        self.latest.end = self.end.value = min(FILE.size, self.latest.end + length)
        self.writer.progressed()

    @precondition(lambda self: self.writer is not None)
    @rule()
    def verify(self) -> None:
        assert self.latest is not None
        assert self.writer is not None
        self.latest.end = self.end.value = FILE.size
        self.latest.verified = True
        self.writer.verified()
        assert self.writer.is_verified

    @precondition(lambda self: self.writer is not None)
    @rule()
    def corrupt(self) -> None:
        assert self.latest is not None
        assert self.writer is not None
        self.run(self.writer.corrupt())
        self.latest.corrupt, self.marked = True, True
        self.latest = _ModelContent(self.latest.path)
        self.end.value = 0

    @precondition(lambda self: self.writer is not None)
    @rule()
    def leave(self) -> None:
        self.scope.close()
        self.writer = None

    @rule(target=readers)
    def open(self) -> Any:
        opening = self.loop.create_task(self.growing.open())
        self.run(asyncio.sleep(0.01))
        if self.writer is None:
            assert not opening.done(), "no file exists yet"
            self.growing.fail(NotYet("stopped"))
            self._end("failed")
            with pytest.raises(NotYet):
                self.run(opening)  # type: ignore[arg-type]
            return _Follower(None, _ModelContent(0))  # type: ignore[arg-type]
        assert self.latest is not None
        follower = _Follower(self.stack.enter_context(self.run(opening)), self.latest)  # type: ignore[arg-type]
        self.followers.append(follower)
        return follower

    @rule()
    def fail(self) -> None:
        self.growing.fail(NotYet("failed"))
        self._end("failed")

    @rule()
    def publish(self) -> None:
        """By another process: it is no file that a reader has opened."""
        self.growing.published()
        self._end("published")

    def _end(self, outcome: str) -> None:
        for follower in self.followers:
            follower.outcome = follower.outcome or outcome

    @rule(follower=readers, offset=st.integers(0, FILE.size - 1))
    def read(self, follower: _Follower, offset: int) -> None:
        if follower.reader is None:
            return
        reading = self.loop.create_task(follower.reader.ready(offset))
        self.run(asyncio.sleep(0.01))
        content = follower.content
        readable = FILE.size if content.verified else min(content.end, FILE.size - HOLD_BACK)
        if content.corrupt:
            with pytest.raises(Unavailable, match="wrong bytes"):
                self.run(reading)  # type: ignore[arg-type]
        elif readable > offset:
            assert self.run(reading) == readable  # type: ignore[arg-type]
        elif follower.outcome is not None:
            with pytest.raises(NotYet if follower.outcome == "failed" else Unavailable):
                self.run(reading)  # type: ignore[arg-type]
        else:
            assert not reading.done(), "no byte is readable, and the growth has not ended"
            self.growing.fail(NotYet("stopped"))
            self._end("failed")
            with pytest.raises(NotYet):
                self.run(reading)  # type: ignore[arg-type]

    @rule(follower=consumes(readers))
    def close(self, follower: _Follower) -> None:
        if follower.reader is not None:
            follower.reader.file.close()
            self.followers.remove(follower)

    @invariant()
    def corruption_is_marked_on_disk(self) -> None:
        assert self.repo.recently_corrupt(FILE) == self.marked

    @invariant()
    def no_reader_completes_an_unverified_file(self) -> None:
        for follower in self.followers:
            if not (follower.content.verified or follower.content.corrupt):
                assert follower.reader.available(0) <= FILE.size - HOLD_BACK

    def teardown(self) -> None:
        self.scope.close()
        self.stack.close()
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


TestGrowingFile = GrowingFileMachine.TestCase
TestGrowingFile.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
