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
RATE = "20MB"
"""What the seeder sends in a second, so that updates are killed while they download, too."""
ENDED = "it had ended"
PATIENCE = 600.0
"""Seconds in which one update ends."""


class UpdateTrials:
    """One seeder with the folder `new`, and caches that have the folder `old`."""

    def __init__(self, root: Path, coordinator: str) -> None:
        self._root = root
        self._old, self._new, self._peer, self._log = (root / name for name in ("old", "new", "peer", "update.log"))
        where = ["--coordinator", coordinator, "--endpoint", CLOSED, "--swarm-listen", "127.0.0.11:0"]
        self._update = [*P2PMODEL, "update", REPO, *where, "--no-daemon", "--json"]

    def undisturbed(self) -> float:
        """Seconds that an update takes from its first report on."""
        running = self._start()
        began = time.monotonic()
        running.wait(PATIENCE)
        return time.monotonic() - began

    def killed_after(self, seconds: float) -> str:
        """Kill an update `seconds` after its first report, check what is left, and complete it. Where it was."""
        running = self._start()
        try:
            running.wait(seconds)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
        moment = _phase(self._log) if running.returncode < 0 else ENDED
        self._check()
        self._complete()
        return moment

    def _start(self) -> "subprocess.Popen[bytes]":
        """An update of a fresh cache that has printed a report."""
        shutil.rmtree(self._peer, ignore_errors=True)
        old = [*P2PMODEL, "import", str(self._old), REPO]
        subprocess.run(old, env=environment(self._peer), check=True, capture_output=True)
        command = [*self._update, "--progress", "json"]
        with self._log.open("wb") as errors:
            running = subprocess.Popen(command, env=environment(self._peer), stdout=subprocess.DEVNULL, stderr=errors)
        deadline = time.monotonic() + PATIENCE
        while not _phase(self._log) and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return running

    def _check(self) -> None:
        """The old revision is whole, and the name leads to it or to the new one, whole."""
        repo = self._peer / "hub" / "models--bench--model"
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

    def _complete(self) -> None:
        done = subprocess.run(
            self._update, env=environment(self._peer), check=False, capture_output=True, text=True, timeout=PATIENCE
        )
        if done.returncode:
            raise SystemExit(f"the update failed: {done.stderr}")
        [update] = json.loads(done.stdout)["updates"]
        if not _equal(Path(update["path"]), self._new):
            raise SystemExit("the updated revision differs from the seeder's")
        self._check()


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
    return ""


def kill_updates(root: Path, kills: int, seed: int) -> None:
    """Kill `kills` updates, and print a line for each. SystemExit for one that leaves damage."""
    dice = random.Random(seed)
    with ExitStack() as stack:
        serve = ["seed", str(root / "new"), "--as", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0"]
        seeder = Program(
            [*P2PMODEL, *serve, "--json", "--upload-limit", RATE],
            stack,
            env=environment(root / "seeder"),
            log=root / "seeder.log",
        )
        trials = UpdateTrials(root, seeder.first()["coordinator"])
        seconds = trials.undisturbed()
        print(f"an undisturbed update takes {seconds:.1f} s")
        number = 0
        while number < kills:
            moment = dice.uniform(0, seconds)
            where = trials.killed_after(moment)
            if where == ENDED:
                seconds = moment  # the machine is quicker now
                continue
            number += 1
            print(f"kill {number:2} after {moment:4.1f} s ({where}): the old revision is whole, the update completes")
