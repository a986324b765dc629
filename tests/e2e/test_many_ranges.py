"""Five hundred clients at once on one file of the daemon's hub endpoint, of which fifty leave in the middle."""

import asyncio
import contextlib
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from tests.support.dice import dice
from tests.support.hub_clients import HubClient
from tests.support.processes import PATIENCE, Nodes, Running, eventually
from tests.support.task_report import TaskReport

__all__ = ["dice"]

pytestmark = pytest.mark.xdist_group("swarm")

CLIENTS, LEAVING = 500, 50
SIZE = 48 << 20
RATE = 12_000_000
"""Bytes a second that the mirror sends: the file is arriving for some seconds."""
MOST = 1 << 20
"""Longest range."""
MEMORY = 64 << 20
"""By so many bytes the daemon's own memory may grow: 128 KiB a client."""
REPO, FILE = "org/model", "model.safetensors"
LOG = logging.getLogger(__name__)  # shown when a test fails


@dataclass(frozen=True)
class Wish:
    """A range. `leaves`: the client disconnects after this many bytes; `within`: after this many seconds, at any
    position."""

    start: int
    end: int
    leaves: float | None = None
    within: float | None = None


@dataclass
class Found:
    """The results of all clients."""

    statuses: Counter[int]
    whole: int = 0
    left: int = 0
    checked: int = 0


def wishes(dice: random.Random) -> list[Wish]:
    """Ranges of all lengths, anywhere; some of them at the very end."""
    found = []
    for number in range(CLIENTS):
        length = min(MOST, int(2 ** dice.uniform(0, 20.2)))
        start = SIZE - length if number % 10 == 0 else dice.randrange(SIZE - length)
        leaving: dict[str, float] = {}
        if number < LEAVING:
            leaving = {"within": dice.uniform(0, 4)} if number % 2 else {"leaves": dice.randrange(length)}
        found.append(Wish(start, start + length, **leaving))
    dice.shuffle(found)
    return found


async def one(http: ClientSession, url: str, content: memoryview, wish: Wish, found: Found) -> None:
    if wish.within is None:
        await read(http, url, content, wish, found)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(wish.within):
            await read(http, url, content, wish, found)
    found.left += 1


async def read(http: ClientSession, url: str, content: memoryview, wish: Wish, found: Found) -> None:
    """Come again while the file is to come; AssertionError for any byte that is not the file's."""
    headers = {"Range": f"bytes={wish.start}-{wish.end - 1}"}
    while True:
        async with http.get(url, headers=headers) as answer:
            found.statuses[answer.status] += 1
            if answer.status == 429:
                await asyncio.sleep(0.2)
                continue
            assert answer.status == 206, answer.status
            assert answer.headers["Content-Range"] == f"bytes {wish.start}-{wish.end - 1}/{SIZE}"
            at = wish.start
            async for data in answer.content.iter_any():
                assert data == content[at : at + len(data)], f"wrong bytes in {at}-{at + len(data)}"
                at += len(data)
                found.checked += len(data)
                if wish.leaves is not None and at - wish.start > wish.leaves:
                    found.left += 1
                    answer.close()
                    return
            assert at == wish.end, f"{at} is not the end of {wish}"
            found.whole += wish.within is None
            return


async def all_at_once(hub: str, content: bytes, dice: random.Random) -> Found:
    """Each client has a connection of its own."""
    found, view = Found(Counter()), memoryview(content)
    connector = TCPConnector(limit=0, force_close=True)
    async with (
        ClientSession(connector=connector, timeout=ClientTimeout(PATIENCE)) as http,
        asyncio.TaskGroup() as group,
    ):
        for wish in wishes(dice):
            group.create_task(one(http, f"{hub}/{REPO}/resolve/main/{FILE}", view, wish, found))
    return found


class Daemon:
    """Resource use of the daemon's process, from the kernel."""

    def __init__(self, running: Running, report: TaskReport) -> None:
        self._pid = running.process.pid
        self._report = report

    def files(self) -> Counter[str]:
        """Open descriptors by kind."""
        found: Counter[str] = Counter()
        for entry in Path(f"/proc/{self._pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[str(entry.readlink()).partition(":[")[0]] += 1
        return found

    def tasks(self) -> Counter[str]:
        return self._report.tasks(self._pid)

    def memory(self) -> int:
        """What it allocated itself, beside page cache, in bytes."""
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """The highest memory during the measurement."""
        highest, stop = [self.memory()], threading.Event()

        def look() -> None:
            while not stop.wait(0.05):
                highest[0] = max(highest[0], self.memory())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield highest
        finally:
            stop.set()
            thread.join()

    def rests(self) -> tuple[Counter[str], Counter[str]]:
        """What it holds and does once all clients are gone: the same for a second."""
        deadline, seen = time.monotonic() + PATIENCE, [(self.files(), self.tasks())]
        while len(seen) < 5 or any(each != seen[-1] for each in seen[-5:]):
            assert time.monotonic() < deadline, f"the values do not settle: {seen[-2:]}"
            time.sleep(0.2)
            seen.append((self.files(), self.tasks()))
        return seen[-1]


@pytest.mark.slow
def test_five_hundred_ranges_of_one_file(nodes: Nodes, tmp_path: Path, dice: random.Random) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = random.Random(1).randbytes(SIZE)
    (source / FILE).write_bytes(content)
    nodes.ok("mirror", "import", source, REPO)
    mirror, _ = nodes.mirror("--max-bytes-per-second", str(RATE))
    report = TaskReport(tmp_path)
    where = ("--swarm-listen", "127.0.0.11:0", "--hub-listen", "127.0.0.1:0", "--endpoint", mirror)
    running = nodes.start("node", "daemon", *where, "--json", **report.env)
    hub, daemon = str(running.ready()["hub"]), Daemon(running, report)
    client = HubClient(Path(sys.executable), tmp_path, hub)
    client.script("import huggingface_hub as h; print(len(h.list_repo_files('org/model')))")
    files, tasks = daemon.rests()

    with daemon.watched() as highest:
        before = highest[0]
        arriving = asyncio.run(all_at_once(hub, content, dice))
        eventually(lambda: state(nodes) == "ready", PATIENCE, lambda: state(nodes))
        check(arriving)
        first_files, first_tasks = daemon.rests()
        check(asyncio.run(all_at_once(hub, content, dice)))
        second_files, second_tasks = daemon.rests()
    LOG.warning("%s; then %d MiB more than the %d MiB before", arriving, (highest[0] - before) >> 20, before >> 20)
    assert highest[0] - before < MEMORY
    assert not first_tasks - tasks, "tasks that were not there before"
    assert not second_tasks - tasks
    assert not first_files - files, "descriptors that were not there before"
    assert not second_files - files
    assert running.stop().code == 0
    assert "Traceback" not in "".join(running.err)


def check(found: Found) -> None:
    assert found.whole == CLIENTS - LEAVING, found
    assert found.left == LEAVING, found


def state(nodes: Nodes) -> str:
    [transfer] = nodes.ok("node", "status", "--json").json["transfers"]
    return str(transfer["state"])
