"""Updates that are killed at random moments: what is left must be usable, and the next run must complete it."""

import json
import random
import shutil
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from scripts.bench.rigs.machine import P2PMODEL, environment
from scripts.bench.rigs.programs import Program

REPO = "bench/model"
CLOSED = "http://127.0.0.1:9"
PATIENCE = 600.0
"""Seconds in which one update ends."""


class UpdateTrials:
    """One seeder with the folder `new`, and caches that have the folder `old`."""

    def __init__(self, root: Path, coordinator: str) -> None:
        self._root = root
        self._old, self._new = root / "old", root / "new"
        where = ["--coordinator", coordinator, "--endpoint", CLOSED, "--swarm-listen", "127.0.0.11:0"]
        self._update = [*P2PMODEL, "update", REPO, *where, "--no-daemon", "--json"]

    def undisturbed(self) -> float:
        """Seconds that an update takes."""
        peer = self._fresh()
        began = time.monotonic()
        self._complete(peer)
        return time.monotonic() - began

    def killed_after(self, seconds: float) -> str:
        """Kill an update after `seconds`, check what is left, and complete it. Returns where it was."""
        peer = self._fresh()
        log = self._root / "update.log"
        with log.open("wb") as errors:
            running = subprocess.Popen(
                [*self._update, "--progress", "json"],
                env=environment(peer),
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                running.wait(seconds)
            except subprocess.TimeoutExpired:
                running.send_signal(signal.SIGKILL)
                running.wait()
        moment = _phase(log) if running.returncode < 0 else "it had ended"
        self._check(peer)
        self._complete(peer)
        return moment

    def _fresh(self) -> Path:
        peer = self._root / "peer"
        shutil.rmtree(peer, ignore_errors=True)
        subprocess.run(
            [*P2PMODEL, "import", str(self._old), REPO], env=environment(peer), check=True, capture_output=True
        )
        return peer

    def _check(self, peer: Path) -> None:
        """The old revision is whole, and the name leads to it or to the new one, whole."""
        repo = peer / "hub" / "models--bench--model"
        named = (repo / "refs" / "main").read_text().strip()
        whole = {
            snapshot.name: self._old if _equal(snapshot, self._old) else self._new
            for snapshot in (repo / "snapshots").iterdir()
            if _equal(snapshot, self._old) or _equal(snapshot, self._new)
        }
        if self._old not in whole.values():
            raise SystemExit("the old revision is damaged")
        if named not in whole:
            raise SystemExit(f"main leads to {named[:8]}, which is not whole")

    def _complete(self, peer: Path) -> None:
        done = subprocess.run(
            self._update, env=environment(peer), check=False, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode:
            raise SystemExit(f"the update failed: {done.stderr}")
        [update] = json.loads(done.stdout)["updates"]
        if not _equal(Path(update["path"]), self._new):
            raise SystemExit("the updated revision differs from the seeder's")
        self._check(peer)


def _equal(one: Path, other: Path) -> bool:
    names = {path.name for path in one.iterdir()}
    if names != {path.name for path in other.iterdir()}:
        return False
    return all((one / name).exists() and (one / name).read_bytes() == (other / name).read_bytes() for name in names)


def _phase(log: Path) -> str:
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith("{") and '"phase"' in line:
            report = json.loads(line)
            return f"{report['phase']}, {report['done'] / max(report['total'], 1):.0%} here"
    return "starting"


def kill_updates(root: Path, kills: int, seed: int) -> None:
    """Kill `kills` updates, and print a line for each. SystemExit for one that leaves damage."""
    dice = random.Random(seed)
    with ExitStack() as stack:
        serve = ["seed", str(root / "new"), "--as", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0"]
        seeder = Program(
            [*P2PMODEL, *serve, "--json"], stack, env=environment(root / "seeder"), log=root / "seeder.log"
        )
        trials = UpdateTrials(root, seeder.first()["coordinator"])
        seconds = trials.undisturbed()
        print(f"an undisturbed update takes {seconds:.1f} s")
        for number in range(kills):
            moment = dice.uniform(0, seconds)
            where = trials.killed_after(moment)
            print(
                f"kill {number + 1:2} after {moment:4.1f} s ({where}): the old revision is whole, the update completes"
            )
