"""A Python process that reports its asyncio tasks on SIGUSR1, without support in the program itself."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

from tests.support.processes import eventually

_SITE = """
import asyncio, json, os, signal
def tell(*_):
    path = os.environ["TASK_REPORT"]
    names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
    with open(path + ".new", "w") as file:
        json.dump(names, file)
    os.replace(path + ".new", path)
signal.signal(signal.SIGUSR1, tell)
"""
_WITHIN = 10.0


class TaskReport:
    """`env` is the environment of the observed process; its reports go through files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "tasks.json"
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(_SITE)
        self.env = {"PYTHONPATH": str(site), "TASK_REPORT": str(self._path)}

    def tasks(self, pid: int) -> Counter[str]:
        """How many tasks of each kind process `pid` has."""
        self._path.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        eventually(self._path.exists, _WITHIN, lambda: "no report of its tasks")
        return Counter(json.loads(self._path.read_text()))
