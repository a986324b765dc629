"""The benchmark scripts/bench/cpu: CPU-seconds a GB of a fetch and its seeder, by thread, beside other programs."""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.measurements.fetch import versions
from scripts.bench.processor.contestants import CpuContestant, Senders, from_peers
from scripts.bench.processor.thread_costs import ROLES, RoleCost, ThreadWatch, by_role, ceiling, threads_of
from scripts.bench.processor.warm_memory import WarmMemory
from scripts.bench.rigs.baseline import MIB, bare_sha256_pass
from scripts.bench.rigs.machine import describe_machine, file_system
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import total_size

GB = 1e9
SIDES = ("receiver", "sender")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds of one process during one download, and of the roles of its threads."""

    seconds: float
    roles: Mapping[str, RoleCost]


@dataclass(frozen=True, slots=True)
class Download:
    """What the two processes of one download took."""

    receiver: Spent
    sender: Spent
    seconds: float
    """From the receiver's start to its end."""


def rates(whole: Spent, start: Spent, size: int, *, named: bool) -> dict[str, Any]:
    """CPU-seconds a GB above the start-up; of `named` threads by role too, with the busiest thread of the role."""
    found: dict[str, Any] = {"per_gb": (whole.seconds - start.seconds) / size * GB, "start": start.seconds}
    for role in ROLES if named else ():
        more, less = whole.roles.get(role, RoleCost()), start.roles.get(role, RoleCost())
        found[role] = max(0.0, more.seconds - less.seconds) / size * GB
        found[f"busiest {role}"] = max(0.0, more.busiest - less.busiest) / size * GB
    return found


def summary(rounds: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]]) -> dict[str, Any]:
    """Medians over the rounds, the ceiling by them, and the medians of each round's own ratios to the others."""
    report: dict[str, Any] = {}
    for name in rounds[0]:
        report[name] = {}
        for side, figures in rounds[0][name].items():
            row: dict[str, Any] = {key: statistics.median(each[name][side][key] for each in rounds) for key in figures}
            if most := ceiling({role: row.get(f"busiest {role}", 0.0) for role in ROLES}):
                row["ceiling"] = most
            row["of"] = _ratios(rounds, name, side, "per_gb")
            row["seconds of"] = _ratios(rounds, name, side, "seconds")
            report[name][side] = row
    return report


def _ratios(
    rounds: Sequence[Mapping[str, Mapping[str, Mapping[str, float]]]], name: str, side: str, figure: str
) -> dict[str, float]:
    """By each other program that has `figure` at this side: the median of the rounds' own ratios."""
    return {
        other: statistics.median(each[name][side][figure] / each[other][side][figure] for each in rounds)
        for other in rounds[0]
        if other != name and all(figure in rounds[0][one].get(side, {}) for one in (name, other))
    }


class CpuBench:
    """The contestants of one rig."""

    def __init__(self, place: Path, options: argparse.Namespace, stack: ExitStack) -> None:
        self._senders = Senders(
            place, options.size_mib * MIB, options.files, stack, engines=options.engines, before=options.before
        )
        self.size = self._senders.size
        self._chosen = self._senders.contestants()
        if options.only:
            wanted = options.only.split(",")
            if unknown := set(wanted) - self._chosen.keys():
                raise SystemExit(f"not a contestant here: {', '.join(sorted(unknown))}; of {', '.join(self._chosen)}")
            self._chosen = {name: each for name, each in self._chosen.items() if name in wanted}

    def measure(self) -> dict[str, dict[str, dict[str, float]]]:
        """One round: the figures of each contestant, by side."""
        found: dict[str, dict[str, dict[str, float]]] = {"sha256": {"receiver": self._bare()}}
        for name, contestant in self._chosen.items():
            start = self._download(contestant, contestant.one_file)
            whole = self._download(contestant, contestant.whole, self.size)
            size, named = self.size - self._one_size(), contestant.named
            found[name] = {side: rates(getattr(whole, side), getattr(start, side), size, named=named) for side in SIDES}
            found[name]["receiver"]["seconds"] = whole.seconds
        return found

    def _one_size(self) -> int:
        return min(path.stat().st_size for path in self._senders.source.iterdir())

    def _bare(self) -> dict[str, float]:
        before = resource.getrusage(resource.RUSAGE_SELF)
        bare_sha256_pass(sorted(self._senders.source.iterdir()), len(os.sched_getaffinity(0)))
        after = resource.getrusage(resource.RUSAGE_SELF)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"per_gb": spent / self.size * GB, "start": 0.0}

    def _warm(self, size: int) -> AbstractContextManager[object]:
        folder = self._senders.home.parent
        return WarmMemory(folder, size) if file_system(folder) == "tmpfs" else nullcontext()

    def _download(self, contestant: CpuContestant, command: list[str], size: int = 0) -> Download:
        """Run `command` with an empty home to its end, and delete it. With `size` it must have written that much."""
        sender, home = contestant.sender, self._senders.home
        home.mkdir()
        before, cost = threads_of(sender.pid), sender.cost()
        with self._warm(size):
            began = time.monotonic()
            process = subprocess.Popen(
                command, env=contestant.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            watch = ThreadWatch(process.pid)
            with process:
                assert process.stdout is not None
                assert process.stderr is not None
                out, errors = process.stdout.read(), process.stderr.read()
                _pid, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - began
        receiver = Spent(usage.ru_utime + usage.ru_stime, by_role(watch.end(), {}))
        sent = Spent(sender.cost() - cost, by_role(threads_of(sender.pid), before))
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed ({process.returncode}):\n{errors}")
        if size and (written := total_size(home)) < size:
            raise SystemExit(f"{' '.join(command)} wrote {written} of {size} bytes")
        if size and from_peers(out) not in (size, None):
            raise SystemExit(f"the fetch took only {from_peers(out)} of {size} bytes from the seeder")
        shutil.rmtree(home)
        return Download(receiver, sent, seconds)


def show(report: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Print the report as two tables."""
    print(f"{report['bytes'] / GB:.2f} GB, medians of {options.runs} runs; CPU-seconds a GB above the start-up")
    found = report["medians"]
    others = [name for name in found if name != "fetch"]
    for side in SIDES:
        print(
            f"\n{side:12}{'CPU-s/GB':>10}{'start-up':>10}{'ceiling':>10}" + "".join(f"{f'of {o}':>14}" for o in others)
        )
        for name in found:
            if row := found[name].get(side):
                ratios = "".join(f"{row['of'][o]:14.2f}" if o in row["of"] else f"{'-':>14}" for o in others)
                most = f"{row['ceiling']:10.2f}" if "ceiling" in row else f"{'-':>10}"
                print(f"{name:12}{row['per_gb']:10.2f}{row['start']:10.2f}{most}{ratios}")
    if "fetch" in found and "before" in found:
        row = found["fetch"]["receiver"]
        before, ratio = found["before"]["receiver"]["seconds"], row["seconds of"]["before"]
        print(f"\nfetch: {row['seconds']:.2f} s instead of {before:.2f}, {1 / ratio:.2f} times as quick")
    for name in ("fetch", "swarm"):
        if name in found:
            _show_threads(name, found[name])
    print(report["rig"])


def _show_threads(name: str, row: Mapping[str, Any]) -> None:
    sides = [row[side] for side in SIDES]
    print(f"\n{name + ': threads':16}" + "".join(f"{side:>10}{'busiest':>10}" for side in ("fetcher", "seeder")))
    for role in ROLES:
        print(f"{role:16}" + "".join(f"{side[role]:10.2f}{side[f'busiest {role}']:10.2f}" for side in sides))
    print(f"{'ceiling, GB/s':16}" + "".join(f"{'':10}{side['ceiling']:10.2f}" for side in sides))


def main(options: argparse.Namespace) -> None:
    """Measure, print two tables, and write the figures to --json."""
    place = Path(tempfile.mkdtemp(prefix="bench-cpu-", dir=options.dir))
    try:
        with ExitStack() as stack:
            bench = CpuBench(place, options, stack)
            rounds = [bench.measure() for _ in range(options.runs + 1)][1:]
            report = {
                "bytes": bench.size,
                "medians": summary(rounds),
                "rounds": rounds,
                "rig": f"{describe_machine()}, {file_system(place)}, {versions()}",
            }
    finally:
        shutil.rmtree(place, ignore_errors=True)
    show(report, options)
    write_json(options.json, report)
