"""What a test must not leave behind: asyncio tasks, threads, child processes, open files and sockets.

`no_leaks` is an autouse fixture where a conftest.py imports it. It costs two readings of /proc/self/fd and one system
call (about 0.1 ms). What belongs to fixtures of a wider scope than the test is there before it begins, and so is not
held against it.
"""

import asyncio
import gc
import os
import re
import sys
import threading
import time
from asyncio import runners
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

GRACE = 20.0
"""Seconds in which what is on its way out may go: a thread ends shortly after its last result is taken."""

LIBRARY_THREADS = ("tqdm_monitor", "TMonitor")
"""Daemons that libraries start once and keep for the whole process."""

LIBRARY_FILES = ("/dev/urandom", "/dev/random", "/dev/null", "anon_inode:[perf_event]")
"""Opened once, when first needed, and kept: by OpenSSL, numpy and torch."""


CACHE_FOLDER = re.compile(r"\.p2pmodel(-[0-9]+)?( \(deleted\))?$")
"""Open for as long as the objects of their cache live. pytest keeps the values of fixtures until after this check."""


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds. `files`: open descriptors with what they are; `children`: whether there is any."""

    threads: frozenset[threading.Thread]
    files: frozenset[str]
    children: bool

    @classmethod
    def now(cls) -> "Held":
        return cls(frozenset(threading.enumerate()), frozenset(_open_files()), _has_children())

    def beyond(self, before: "Held") -> list[str]:
        """Describe what is held now and was not in `before`."""
        threads = [t for t in self.threads - before.threads if type(t).__name__ not in LIBRARY_THREADS]
        found = [f"thread {thread.name}" for thread in threads if thread.is_alive()]
        found += [f"open {file}" for file in sorted(self.files - before.files)]
        if self.children and not before.children:
            found.append(f"child processes {_children()}")
        return found


@pytest.fixture(autouse=True)
def no_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves something running or open."""
    tasks: list[str] = []
    cancel_all = runners._cancel_all_tasks  # type: ignore[attr-defined]

    def note_and_cancel(loop: asyncio.AbstractEventLoop) -> None:
        # A Runner silently cancels the remaining tasks when it closes: this is the last place where they are visible.
        tasks.extend(repr(task) for task in asyncio.all_tasks(loop))
        cancel_all(loop)

    monkeypatch.setattr(runners, "_cancel_all_tasks", note_and_cancel)
    before = Held.now()
    yield
    left = tasks + _left_since(before)
    assert not left, "the test left behind:\n" + "\n".join(left)


def _left_since(before: Held) -> list[str]:
    left = Held.now().beyond(before)
    if left:
        _let_go()
        deadline = time.monotonic() + GRACE
        while (left := Held.now().beyond(before)) and time.monotonic() < deadline:
            time.sleep(0.01)
    return left


def _let_go() -> None:
    """Close resources that are meant to stay open, and those held only by garbage."""
    if "huggingface_hub" in sys.modules:
        from huggingface_hub import close_session

        close_session()  # its one client for the whole process keeps connections alive
    gc.collect()


def _open_files() -> Iterator[str]:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the descriptor of the listing itself
            continue
        if target not in LIBRARY_FILES and not CACHE_FOLDER.search(target):
            yield f"{entry.name}: {target}"


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _children() -> list[str]:
    """Command lines of this process's children."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue
    return found
