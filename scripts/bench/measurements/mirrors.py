"""The benchmark scripts/bench/mirrors: several mirrors as one source."""

import argparse
import asyncio
import collections
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from p2pmodel.errors import P2PModelError
from scripts.bench.rigs.machine import HF, P2PMODEL, describe_machine, environment, file_system
from scripts.bench.rigs.mirrors import MirrorRig
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import import_directory, write_random
from tests.support.toxic import FAULTS, ToxicRun, model, toxic_run

LINKS = (8e6, 36e6, 87e6)
DELAY = 0.1
"""Seconds each way to the distant mirror."""

TOXIC_SIZE = 12_000_000
FILE = "model.safetensors"


class MirrorBench:
    """The rig, the repositories of its mirrors, and the contestants."""

    def __init__(self, place: Path, options: argparse.Namespace, stack: ExitStack) -> None:
        self._place = place
        self.rates = [rate / options.scale for rate in LINKS]
        self.sizes = {"bench/tiny": 1000, "bench/all": int(sum(self.rates) * options.seconds)}
        self.sizes |= {f"bench/solo{n}": int(rate * options.seconds) for n, rate in enumerate(self.rates, 1)}
        cache, self._commits = place / "mirror", dict[str, str]()
        for repo, size in self.sizes.items():
            self._commits[repo] = self._publish(repo, size, cache)
        self.rig = MirrorRig(cache, self.rates, place, stack)
        self._distant = self.rig.distant(len(LINKS), DELAY)

    def _publish(self, repo: str, size: int, cache: Path) -> str:
        source = self._place / "source"
        source.mkdir()
        write_random(source / FILE, size)
        commit = import_directory(source, repo, cache)
        shutil.rmtree(source)
        return commit

    def round(self) -> dict[str, dict[str, float]]:
        """Every contestant once: seconds and bytes per second."""
        best_first = self.rig.urls[::-1]
        found = {"ours": self._timed(self._ours(best_first), "bench/all")}
        for number, url in enumerate(self.rig.urls, 1):
            found[f"solo {number}"] = self._timed(self._ours([url]), f"bench/solo{number}")
        found["distant"] = self._timed(self._ours([self._distant]), f"bench/solo{len(LINKS)}")
        found["hf"] = self._timed(self._hf(best_first[0]), f"bench/solo{len(LINKS)}")
        if shutil.which("aria2c"):
            for splits in (16, 48):
                found[f"aria2c {splits}"] = self._timed(self._aria2c(best_first, splits), "bench/all")
        return found

    def _ours(self, urls: list[str]) -> list[str]:
        endpoints = [part for url in urls for part in ("--endpoint", url)]
        return [*P2PMODEL, "fetch", "REPO", *endpoints, "--json", "-q"]

    def _hf(self, url: str) -> list[str]:
        return ["env", f"HF_ENDPOINT={url}", HF, "download", "REPO"]

    def _aria2c(self, urls: list[str], splits: int) -> list[str]:
        shared = ["-q", "-x16", f"-s{splits}", "-k1M", "--file-allocation=none", "-d", str(self._place / "client")]
        return ["aria2c", *shared, *(f"{url}/REPO/resolve/COMMIT/{FILE}" for url in urls)]

    def _timed(self, command: list[str], repo: str) -> dict[str, float]:
        started, whole = self._run(command, "bench/tiny"), self._run(command, repo)
        return {"seconds": whole, "start": started, "rate": self.sizes[repo] / max(0.001, whole - started)}

    def _run(self, command: list[str], repo: str) -> float:
        home = self._place / "client"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        filled = [part.replace("REPO", repo).replace("COMMIT", self._commits[repo]) for part in command]
        began = time.monotonic()
        subprocess.run(self.rig.inside(filled), check=True, env=environment(home), stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        got = {path.stat().st_size for path in home.rglob("*") if path.is_file()}
        if self.sizes[repo] not in got:
            raise SystemExit(f"{filled} fetched {max(got)} of {self.sizes[repo]} bytes")
        return seconds


def summary(bench: MirrorBench, rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians, and the ratios of medians."""
    names = rounds[0].keys()
    medians = {n: {k: statistics.median(r[n][k] for r in rounds) for k in rounds[0][n]} for n in names}
    solo = sum(figures["rate"] for name, figures in medians.items() if name.startswith("solo"))
    ours, size = medians["ours"], bench.sizes["bench/all"]
    ratios = {
        "ours of the sum of solo rates": ours["rate"] / solo,
        "seconds to verified of bytes / sum of solo rates": (ours["seconds"] - ours["start"]) * solo / size,
        "distant of solo": medians["distant"]["rate"] / medians[f"solo {len(LINKS)}"]["rate"],
        "ours of hf from the best": ours["rate"] / medians["hf"]["rate"],
    }
    others = [figures["rate"] for name, figures in medians.items() if name.startswith("aria2c")]
    if others:
        ratios["ours of the better aria2c"] = ours["rate"] / max(others)
    return {"bytes": size, "links": bench.rates, "medians": medians, "ratios": ratios, "rounds": rounds}


async def toxic(runs: int, seed: int) -> dict[str, Any]:
    """`runs` runs with one toxic mirror of three. Every fault is drawn once before any is drawn again."""
    dice, snapshot = random.Random(seed), model(TOXIC_SIZE)
    faults = [fault for _ in range(runs // len(FAULTS) + 1) for fault in dice.sample(FAULTS, len(FAULTS))][:runs]
    done: list[ToxicRun] = []
    failures = []
    for fault in faults:
        try:
            done.append(await toxic_run(snapshot, fault, dice))
        except P2PModelError as error:
            failures.append(f"{fault}: {error}")
    by_fault: dict[str, list[ToxicRun]] = collections.defaultdict(list)
    for run in done:
        by_fault[run.fault].append(run)
    received, wasted = sum(run.received for run in done), sum(run.wasted for run in done)
    return {
        "runs": runs,
        "complete": len(done),
        "wrong": sum(not run.right for run in done),
        "failures": failures,
        "wasted": wasted / received,
        "longest gap": max(run.gap for run in done),
        "longest gap after a kill": max((run.gap for run in by_fault.get("kill", [])), default=0.0),
        "wasted by fault": {f: sum(r.wasted for r in rs) / sum(r.received for r in rs) for f, rs in by_fault.items()},
    }


def show(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    if "medians" not in report:
        print(f"{report['complete']} of {report['runs']} complete, {report['wrong']} wrong")
        print(f"wasted {report['wasted']:.2%}, longest gap {report['longest gap']:.2f} s", end="")
        print(f", after the death of the best mirror {report['longest gap after a kill']:.2f} s")
        print(*report["failures"], sep="\n")
        return
    print("links of " + ", ".join(f"{rate / 1e6:.2f}" for rate in report["links"]) + " MB/s; medians")
    print(f"{'':10}{'MB/s':>8}{'seconds':>9}{'start':>7}")
    for name, row in report["medians"].items():
        print(f"{name:10}{row['rate'] / 1e6:8.2f}{row['seconds']:9.2f}{row['start']:7.2f}")
    for name, ratio in report["ratios"].items():
        print(f"{ratio:6.3f}  {name}")


def transfers(options: argparse.Namespace) -> dict[str, Any]:
    """Run all contestants `--runs` times on a rig of their own."""
    place = Path(tempfile.mkdtemp(prefix="bench-mirrors-", dir=options.dir))
    try:
        with ExitStack() as stack:
            bench = MirrorBench(place, options, stack)
            report = summary(bench, [bench.round() for _ in range(options.runs)])
            links = "tc tbf in network namespaces" if bench.rig.real else "mirrors that limit themselves"
            return report | {"rig": f"{links}, {file_system(place)}"}
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    report = asyncio.run(toxic(options.toxic, options.seed)) if options.toxic else transfers(options)
    report["rig"] = f"{report.get('rig', 'in one process')}, {describe_machine()}"
    show(report)
    print(report["rig"])
    write_json(options.json, report)
