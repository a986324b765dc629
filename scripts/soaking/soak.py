"""Rounds of scenarios, several at a time: an undisturbed run, then the scenarios of the same setting.

A scenario that is wrong runs again, after another undisturbed run: other programs on this machine may have delayed it.
What is wrong twice is a failure, and leaves its logs.
"""

import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from scripts.bench.rigs.machine import describe_machine
from scripts.soaking.generation import scenario_of, setting_of
from scripts.soaking.judgement import Verdict, judge
from scripts.soaking.network import unavailable
from scripts.soaking.run import Outcome, Run, limit_of, undisturbed_limit
from scripts.soaking.scenario import Scenario, Setting
from scripts.soaking.snapshot import Snapshot, make
from scripts.soaking.summary import summary

_KEPT = ("*.log", "*.served")


class Soak:
    """`scenarios` of `seed`, none started after `minutes`; `per_round` of them share an undisturbed run, and `jobs`
    rounds run at a time. `only` are the names of those to run; `keep` the folder for logs; `json` a file. `lenient`
    bounds are for a machine that is busy with other work."""

    def __init__(
        self,
        seed: int,
        scenarios: int,
        minutes: float,
        *,
        per_round: int = 4,
        jobs: int = 2,
        only: str = "",
        quick: bool = False,
        lenient: bool = False,
        keep: str = "",
        json: str = "",
    ) -> None:
        self._seed = seed
        self._scenarios = scenarios
        self._until = time.monotonic() + minutes * 60
        self._per_round = per_round
        self._jobs = jobs
        self._only = [name for name in only.split(",") if name]
        self._quick = quick
        self._lenient = lenient
        self._keep = Path(keep) if keep else Path(tempfile.gettempdir()) / f"soak-{seed}"
        self._json = Path(json) if json else None
        self._snapshots: dict[int, Snapshot] = {}
        self._lock = threading.Lock()
        self._runs = count(1)
        self._ended = threading.Event()
        self.verdicts: list[Verdict] = []
        """The last verdict on each scenario."""
        self.repeated: list[Verdict] = []
        """Verdicts on scenarios that were right when they were repeated."""

    def run(self) -> int:
        """Run all; 1 if a scenario was wrong twice, 2 if this machine cannot run any."""
        if reason := unavailable():
            print(f"no scenario can run here: {reason}")
            return 2
        print(f"seed {self._seed}; {describe_machine()}", flush=True)
        with ExitStack() as stack:
            for number in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, number, signal.signal(number, self._end_early))
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True)))
            pool = stack.enter_context(ThreadPoolExecutor(self._jobs))
            for done in [pool.submit(self._round, place, number) for number in self._rounds]:
                done.result()
        print(summary(self.verdicts, self.repeated))
        if self._json:
            figures = {"seed": self._seed, "machine": describe_machine(), "scenarios": list(map(_row, self.verdicts))}
            self._json.write_text(json.dumps(figures, indent=1) + "\n")
        return int(any(verdict.faults for verdict in self.verdicts))

    def _end_early(self, *_: object) -> None:
        """End after a signal: runs that have begun take their namespaces and programs with them."""
        self._until = 0.0
        self._ended.set()

    @property
    def _rounds(self) -> list[int]:
        if self._only:
            return sorted({int(name.partition(".")[0]) for name in self._only})
        return list(range(-(-self._scenarios // self._per_round)))

    def _round(self, place: Path, number: int) -> None:
        """One undisturbed run, and the scenarios of its setting."""
        if time.monotonic() > self._until:
            return
        setting = setting_of(self._seed, number, quick=self._quick)
        snapshot = self._snapshot(place, setting)
        base = Scenario(f"{number}.base", setting, ())
        undisturbed = self._twice(place, base, snapshot, None)
        for index in self._indexes(number):
            if undisturbed is None or time.monotonic() > self._until:
                return
            scenario = scenario_of(self._seed, number, index, quick=self._quick)
            self._twice(place, scenario, snapshot, undisturbed)

    def _indexes(self, number: int) -> list[int]:
        if self._only:
            names = [name.partition(".") for name in self._only]
            return [int(index) for each, _, index in names if int(each) == number and index.isdecimal()]
        first = number * self._per_round
        return [index for index in range(self._per_round) if first + index < self._scenarios]

    def _twice(self, place: Path, scenario: Scenario, snapshot: Snapshot, base: Outcome | None) -> Outcome | None:
        """The outcome, of the second run if the first one was wrong; None if that one was wrong, too."""
        first = self._once(place, scenario, snapshot, base)
        verdict = first
        if first.faults and self._until > time.monotonic():
            if base is not None:
                again = self._once(place, Scenario(scenario.name, scenario.setting, ()), snapshot, None)
                base = again.outcome if not again.faults else base
            verdict = self._once(place, scenario, snapshot, base, second=True)
        if self._ended.is_set():
            return None
        with self._lock:
            self.verdicts.append(verdict)
            if first.faults and not verdict.faults:
                self.repeated.append(first)
        if verdict.faults:
            print(f"        again: scripts/soak --seed {self._seed} {self._flags}--only {scenario.name}", flush=True)
        return None if verdict.faults else verdict.outcome

    def _once(
        self, place: Path, scenario: Scenario, snapshot: Snapshot, base: Outcome | None, *, second: bool = False
    ) -> Verdict:
        folder = place / str(next(self._runs))
        expected = base.received if base else float(snapshot.size)
        undisturbed = base.slowest or 0.0 if base else undisturbed_limit()
        limit = limit_of(undisturbed, scenario) if base else undisturbed_limit()
        try:
            outcome = Run(scenario, snapshot, folder, self._ended, expected=expected, limit=limit).run()
        except (SystemExit, OSError, subprocess.CalledProcessError) as error:
            outcome = Outcome(complaints=[f"it could not run: {error}"])
        verdict = judge(scenario, outcome, undisturbed, snapshot.size, lenient=self._lenient)
        if self._ended.is_set():
            return verdict
        print(f"{verdict}{' (repeated)' if second else ''}", flush=True)
        if verdict.faults:
            self._keep_logs(folder, f"{scenario.name}-{folder.name}")
        shutil.rmtree(folder, ignore_errors=True)
        return verdict

    def _keep_logs(self, folder: Path, name: str) -> None:
        kept = self._keep / name
        kept.mkdir(parents=True, exist_ok=True)
        for pattern in _KEPT:
            for file in folder.glob(pattern):
                shutil.copy(file, kept)
        print(f"        logs: {kept}", flush=True)

    def _snapshot(self, place: Path, setting: Setting) -> Snapshot:
        with self._lock:
            if setting.size not in self._snapshots:
                self._snapshots[setting.size] = make(place / f"snapshot-{setting.megabytes}", setting.size)
            return self._snapshots[setting.size]

    @property
    def _flags(self) -> str:
        return "--quick " if self._quick else ""


def _row(verdict: Verdict) -> dict[str, Any]:
    return {
        **asdict(verdict.scenario),
        "seconds": verdict.outcome.slowest,
        "bound": verdict.bounds.seconds,
        "copies": verdict.copies,
        "copies_bound": verdict.bounds.copies,
        "wrong": list(verdict.faults),
    }
