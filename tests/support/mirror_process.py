"""`p2pmodel mirror serve` as a process of its own."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.eventually import PATIENCE


@dataclass
class MirrorProcess:
    """A running mirror at `endpoint`; `log` is its access log."""

    endpoint: str
    log: Path
    process: subprocess.Popen[str] = field(repr=False)

    def requests(self) -> list[dict[str, Any]]:
        """The access log so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


@contextlib.contextmanager
def mirror_process(hub: Path, log: Path, *options: str, env: dict[str, str] | None = None) -> Iterator[MirrorProcess]:
    """Serve the cache at `hub` on a free loopback port until the context is left."""
    command = [sys.executable, "-m", "p2pmodel", "mirror", "serve", "--json", "--listen", "127.0.0.1:0"]
    command += ["--cache-dir", str(hub), "--access-log", str(log), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(env or {})})
    try:
        yield MirrorProcess(json.loads(first_line(process))["endpoint"], log, process)
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def first_line(process: subprocess.Popen[str]) -> str:
    """The first line a p2pmodel process writes to stdout: it is ready. AssertionError if it ends before."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        end = time.monotonic() + PATIENCE
        assert selector.select(max(0.0, end - time.monotonic())), f"no line on stdout within {PATIENCE} s"
    line = process.stdout.readline()
    assert line, f"the process ended with exit code {process.wait(timeout=PATIENCE)}"
    return line
