"""p2pmodel as a user runs it: real processes with caches of their own, on 127.0.0.x."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import PATIENCE
from tests.support.no_mirror import NO_MIRROR

P2PMODEL = [sys.executable, "-m", "p2pmodel"]
GATED = [sys.executable, str(Path(__file__).with_name("gated.py"))]
ROOT = Path(__file__).parents[2]


def environment(cache: Path, **extra: str) -> dict[str, str]:
    """The environment of a node with the hub cache `cache`, without the caller's settings, which needs no mirror."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_", "XDG_"))}
    own = {"HF_HUB_CACHE": str(cache), "HF_HOME": str(cache.parent), "HOME": str(cache.parent), **NO_MIRROR}
    return kept | own | extra


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass
class Running:
    """A command that runs; what it prints is collected as it comes."""

    process: subprocess.Popen[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._readers = [
            threading.Thread(target=_collect, args=(stream, lines), daemon=True)
            for stream, lines in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    def ready(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """The first line on stdout, as JSON."""
        eventually(lambda: bool(self.out) or self.process.poll() is not None, timeout, lambda: "".join(self.err))
        assert self.out, f"ended with {self.process.poll()}: {''.join(self.err)}"
        found = json.loads(self.out[0])
        assert isinstance(found, dict)
        return found

    def progress(self) -> dict[str, Any]:
        """The last progress report of `--progress json`."""
        for line in reversed(self.err):
            if '"phase"' in line:
                found = json.loads(line)
                assert isinstance(found, dict)
                return found
        return {}

    def wait(self, timeout: float = PATIENCE) -> Finished:
        """Wait for its end."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"still running after {timeout} s: {''.join(self.err[-20:])}") from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return Finished(code, "".join(self.out), "".join(self.err))

    def stop(self, by: signal.Signals = signal.SIGTERM, timeout: float = PATIENCE) -> Finished:
        """Send a signal and wait for its end."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        return self.wait(timeout)


def eventually(met: Callable[[], bool], timeout: float, explain: Callable[[], str] = str) -> None:
    """Wait until `met()`; AssertionError with `explain()` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not met():
        assert time.monotonic() < deadline, f"not within {timeout} s: {explain()}"
        time.sleep(0.02)


class Nodes:
    """Commands on several nodes below one directory. Commands still running at the end are killed.

    Coordinators and nodes share the token of one publisher, as on a cluster: publishing and assemblies need one.
    """

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self._stack = stack
        self._hubs = 0
        self._gates = 0
        self._command = P2PMODEL
        self.publish_token = token_file(root / "publisher.token")

    def cache(self, node: str) -> Path:
        """The hub cache of `node`."""
        return self.root / node / "hub"

    def inside(self, node: str, command: list[str]) -> list[str]:
        """`command` as it runs on `node`: here all nodes are this machine."""
        return command

    def run(self, node: str, *args: str | Path, timeout: float = PATIENCE, **env: str) -> Finished:
        """Run a command to its end."""
        return self.start(node, *args, **env).wait(timeout)

    def ok(self, node: str, *args: str | Path, timeout: float = PATIENCE, **env: str) -> Finished:
        """Run a command that must succeed."""
        done = self.run(node, *args, timeout=timeout, **env)
        assert done.code == 0, f"{args}: exit {done.code}\n{done.out}\n{done.err}"
        return done

    def start(self, node: str, *args: str | Path, publishers: bool = True, **env: str) -> Running:
        """Start a command; its own process group, so that a test may kill all of it.

        `publishers`: a coordinator gets the token of the publisher.
        """
        publishes = {"P2PMODEL_PUBLISH_TOKEN_FILE": str(self.publish_token)}
        if publishers and args[0] in ("seed", "coordinator") and "--publish-token-file" not in args:
            args = (*args, "--publish-token-file", self.publish_token)
        return self.program(node, *self._command, *map(str, args), **publishes | env)

    @contextmanager
    def together(self, count: int) -> Iterator[None]:
        """The `count` commands that the context starts begin at the same moment, when all of them have loaded."""
        self._gates += 1
        gate = self.root / f"gate{self._gates}"
        self._command = [*GATED, str(gate)]
        yield
        self._command = P2PMODEL
        self.until(lambda: len(list(self.root.glob(f"{gate.name}.*"))) == count, f"{count} commands have loaded")
        gate.touch()

    def program(self, node: str, *command: str, **env: str) -> Running:
        """Start another program in the environment of `node`."""
        process = subprocess.Popen(
            self.inside(node, list(command)),
            env=environment(self.cache(node), **env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._stack.callback(_kill, process)
        return Running(process)

    def until(self, met: Callable[[], bool], what: str) -> None:
        """Wait until `met()`."""
        eventually(met, PATIENCE, lambda: what)

    def mirror(
        self, *options: str, node: str = "mirror", address: str = "127.0.0.2:0", log: str = "mirror.log"
    ) -> tuple[str, Path]:
        """Serve the cache of `node` as a mirror; its endpoint, and the log of what it served."""
        path = self.root / log
        running = self.start(node, "mirror", "serve", "--listen", address, "--json", "--access-log", path, *options)
        return str(running.ready()["endpoint"]), path

    def hub(
        self, directory: Path, *faults: str, repo: str = "org/model", options: Sequence[str] = (), node: str = "hub"
    ) -> tuple[str, Path]:
        """Serve the files of `directory` on `node` as a hub with `faults` (see hub_faults) and more `options` of
        fake_hub. Returns its endpoint and the path of its request log."""
        self._hubs += 1
        log = self.root / f"hub-{self._hubs}.log"
        options = [*options, *(arg for fault in faults for arg in ("--fault", fault))]
        program = ("-m", "tests.support.fake_hub", "--repo", repo)
        process = subprocess.Popen(
            self.inside(node, [sys.executable, *program, "--dir", str(directory), "--log", str(log), *options]),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._stack.callback(_kill, process)
        return str(Running(process).ready()["url"]), log

    def seed(self, *args: str | Path, node: str = "seeder", address: str = "127.0.0.3", **env: str) -> Running:
        """Start `p2pmodel seed ARGS` with free ports on `address`; `ready()` returns its first line."""
        where = ("--listen", f"{address}:0", "--swarm-listen", f"{address}:0")
        return self.start(node, "seed", *args, *where, "--json", "-q", **env)

    def fetch(self, node: str, *args: str | Path, address: str = "127.0.0.11", **env: str) -> Running:
        """Start `p2pmodel fetch ARGS` with JSON output and progress."""
        where = ("--swarm-listen", f"{address}:0", "--json", "--progress", "json")
        return self.start(node, "fetch", *args, *where, **env)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Nodes below the test's own directory."""
    with ExitStack() as stack:
        yield Nodes(tmp_path, stack)


def token_file(path: Path) -> Path:
    """A file with a new token that only this user reads."""
    path.touch(mode=0o600)
    path.write_text(f"{secrets.token_hex(16)}\n")
    return path


def served(log: Path) -> list[dict[str, Any]]:
    """The requests in a mirror's (or a faulty hub's) log so far."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().splitlines()]


def _collect(stream: Any, lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
