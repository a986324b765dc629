"""Ctrl-C for real processes: during `p2pmodel fetch --load`, and in a script that calls `p2pmodel.load`."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from p2pmodel.loading.model import load
from scripts.load_faults.model import CONVERTED, REPO, Boundary, TinyModel, in_shards
from tests.support.processes import Finished, Nodes, Running, eventually

PATIENCE = 180.0
"""Seconds that a process may take: the import of torch alone takes a minute on a busy machine."""
END_SECONDS = 30.0
"""Seconds in which a process must have ended after the fault."""
LOAD = """
import sys
import p2pmodel
p2pmodel.load(sys.argv[1], device="cpu")
"""


@dataclass(frozen=True)
class ProcessSite:
    """The model, and the commands of nodes below one folder."""

    nodes: Nodes
    model: TinyModel
    source: Path


@dataclass(frozen=True)
class ProcessFault:
    """Ctrl-C: `start` begins to load on a node from an endpoint; `check` says what is wrong with how it ended."""

    name: str
    start: Callable[[ProcessSite, str, str, Path], Running]
    check: Callable[[Finished], str]

    def run(self, count: int) -> list[dict[str, Any]]:
        """The fault at `count` boundaries, from the first to the last one."""
        # A script that was started in the background ignores the signal, and so would its children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with ExitStack() as stack:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="load-faults-")))
            source = in_shards(folder / "model")
            site = ProcessSite(Nodes(folder, stack), TinyModel.of(source), source)
            boundaries = site.model.boundaries
            step = max(1, (len(boundaries) - 1) // max(1, count - 1))
            return [self._case(site, boundary, number) for number, boundary in enumerate(boundaries[::step][:count])]

    def _case(self, site: ProcessSite, boundary: Boundary, number: int) -> dict[str, Any]:
        name, wrong = f"node-{number}", list[str]()
        temporary = site.nodes.root / f"{name}-tmp"
        temporary.mkdir()
        endpoint, _ = site.nodes.hub(site.source, f"stall:{boundary.offset}@{boundary.shard}", repo=REPO)
        running = self.start(site, name, endpoint, temporary)
        eventually(lambda: _loads(running, temporary), PATIENCE, lambda: "".join(running.err))
        time.sleep(0.5)  # so that it waits for the tensor behind the boundary
        began = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        done = running.wait(PATIENCE)
        seconds = time.monotonic() - began
        wrong += [text for text in (self.check(done),) if text]
        if seconds > END_SECONDS:
            wrong.append(f"it ended after {seconds:.0f} s")
        wrong += [f"left behind: {path.name}" for path in temporary.iterdir()]
        wrong += self._afterwards(site, name)
        ended = f"exit {done.code}"
        return {"fault": self.name, "boundary": str(boundary), "ended": ended, "seconds": seconds, "wrong": wrong,
                "line": done.err.strip().rpartition("\n")[2]}  # fmt: skip

    def _afterwards(self, site: ProcessSite, name: str) -> list[str]:
        """The next run must be right, for the hub's own command, too."""
        endpoint, _ = site.nodes.hub(site.source, repo=REPO)
        command = ("fetch", REPO, "--endpoint", endpoint, "--load", "--device", "cpu", "--json", "-q")
        done = site.nodes.run(name, *command, timeout=PATIENCE)
        if done.code:
            return [f"the next run failed: {done.err.strip()}"]
        got = load(Path(done.json["path"]), options=CONVERTED).model.state_dict()
        wrong = [f"wrong tensor: {key}" for key, each in site.model.tensors.items() if not torch.equal(got[key], each)]
        hf = Path(sys.executable).parent / "hf"
        command = (str(hf), "cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
        verified = site.nodes.program(name, *command, HF_ENDPOINT=endpoint).wait(PATIENCE)
        return [*wrong, *([f"hf cache verify: {verified.err.strip()}"] if verified.code else [])]


def _loads(running: Running, temporary: Path) -> bool:
    """Whether it waits for tensors, or has ended."""
    return any(temporary.glob("p2pmodel-*/tokenizer.json")) or running.process.poll() is not None


def _fetch(site: ProcessSite, node: str, endpoint: str, temporary: Path) -> Running:
    command = ("fetch", REPO, "--endpoint", endpoint, "--load", "--device", "cpu", "--progress", "none")
    return site.nodes.start(node, *command, TMPDIR=str(temporary))


def _script(site: ProcessSite, node: str, endpoint: str, temporary: Path) -> Running:
    command = (sys.executable, "-c", LOAD, REPO)
    return site.nodes.program(node, *command, HF_ENDPOINT=endpoint, TMPDIR=str(temporary))


def _interrupted(done: Finished) -> str:
    right = done.code == 130 and done.err.count("\n") == 1 and done.err.startswith("p2pmodel: interrupted")
    return "" if right else f"exit {done.code}: {done.err.strip()[-200:]}"


def _keyboard_interrupt(done: Finished) -> str:
    right = done.code in (1, 130, -signal.SIGINT) and done.err.strip().endswith("KeyboardInterrupt")
    return "" if right else f"exit {done.code}: {done.err.strip()[-200:]}"


PROCESS_FAULTS = (
    ProcessFault("Ctrl-C at fetch --load", _fetch, _interrupted),
    ProcessFault("Ctrl-C at p2pmodel.load", _script, _keyboard_interrupt),
)
