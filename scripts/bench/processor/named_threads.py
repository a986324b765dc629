"""Runs `p2pmodel` with a name for each thread, so that /proc shows what its CPU time is for.

The kernel's name of a thread is that of its parent until it sets its own, which Python and libtorrent do not.
"""

import os
import threading
from pathlib import Path
from typing import Any

import libtorrent as lt

from p2pmodel.__main__ import main
from scripts.bench.processor.thread_costs import network_name

_TASKS = Path("/proc/self/task")
_LONGEST = 15
"""Bytes of a thread's name that the kernel keeps."""


def name_thread(thread: str, name: str) -> None:
    """Give the thread of this process with the id `thread` the name that /proc shows."""
    (_TASKS / thread / "comm").write_text(name[:_LONGEST])


def name_python_threads() -> None:
    """Let each thread that Python starts from now on show Python's name for it."""
    plain = threading.Thread.run

    def run(self: threading.Thread) -> None:
        name_thread(str(threading.get_native_id()), self.name)
        plain(self)

    threading.Thread.run = run  # type: ignore[method-assign]


class NamedSession(lt.session):
    """A libtorrent session that names its network thread: the last that it starts, after two for the disk."""

    def __init__(self, *arguments: Any) -> None:
        before = set(os.listdir(_TASKS))  # noqa: PTH208
        super().__init__(*arguments)
        newest = max(int(thread) for thread in set(os.listdir(_TASKS)) - before)  # noqa: PTH208
        name_thread(str(newest), network_name(newest))


if __name__ == "__main__":
    name_python_threads()
    lt.session = NamedSession
    main()
