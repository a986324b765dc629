"""The benchmark behind scripts/bench/mirrors: one file from mirrors behind links of 8, 36 and 87 MB/s scaled down, by

ours     `p2pmodel fetch` from all mirrors at once, the quickest first, knowing nothing of them beforehand
solo N   `p2pmodel fetch` from mirror N alone
distant  like solo N of the quickest, 200 ms away
hf       `hf download` from the quickest mirror
aria2c N `aria2c -x16 -sN` with the URLs of all mirrors

in turn, `--runs` times, each process with an empty cache. Ours verifies (sha256), the others do not. Seconds are
wall-clock, from start to end of a process; rates are payload bytes over seconds less what the same program takes
for a file of 1 kB, so that nobody's start counts as a slow link. Solo files are smaller: each takes about `--seconds`.

`--toxic N` instead: N runs over three mirrors in this process, one of which has a fault drawn at random.
"""

import argparse
import asyncio
import collections
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from p2pmodel.errors import P2PModelError
from scripts.bench.rigs.machine import P2PMODEL, environment, file_system, import_directory, rig, write_random
from scripts.bench.rigs.mirrors import Rig
from tests.support.toxic import FAULTS, ToxicRun, model, toxic_run

LINKS = (8e6, 36e6, 87e6)
DELAY = 0.1
"""Seconds each way to the distant mirror."""

TOXIC_SIZE = 12_000_000
FILE = "model.safetensors"
HF = str(Path(sys.executable).with_name("hf"))


class Bench:
    """The rig, the repositories of its mirrors, and the contestants."""

    def __init__(self, place: Path, flags: argparse.Namespace, stack: ExitStack) -> None:
        self._place = place
        self.rates = [rate / flags.scale for rate in LINKS]
        self.sizes = {"bench/tiny": 1000, "bench/all": int(sum(self.rates) * flags.seconds)}
        self.sizes |= {f"bench/solo{n}": int(rate * flags.seconds) for n, rate in enumerate(self.rates, 1)}
        cache, self._commits = place / "mirror", dict[str, str]()
        for repo, size in self.sizes.items():
            self._commits[repo] = self._publish(repo, size, cache)
        self.rig = Rig(cache, self.rates, stack)
        self._distant = self.rig.distant(len(LINKS), DELAY, stack)

    def _publish(self, repo: str, size: int, cache: Path) -> str:
        source = self._place / "source"
        source.mkdir()
        write_random(source / FILE, size)
        commit = import_directory(source, repo, cache)
        shutil.rmtree(source)
        return commit

    def round(self) -> dict[str, dict[str, float]]:
        """Every contestant once: seconds and bytes a second."""
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
        got = max(path.stat().st_size for path in home.rglob("*") if path.is_file())
        if got != self.sizes[repo]:
            raise SystemExit(f"{filled} brought {got} of {self.sizes[repo]} bytes")
        return seconds


def summary(bench: Bench, rounds: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians, and the ratios that matter, of medians."""
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
    """`runs` runs with one toxic mirror of three; every fault in turn before any comes again."""
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
        "longest gap after a kill": max((run.gap for run in by_fault["kill"]), default=0.0),
        "wasted by fault": {f: sum(r.wasted for r in rs) / sum(r.received for r in rs) for f, rs in by_fault.items()},
    }


def show(report: dict[str, Any]) -> None:
    """The report as a table."""
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


def main() -> None:
    """Measure, print, and write the numbers to --json."""
    parser = argparse.ArgumentParser(prog="scripts/bench/mirrors", description="several mirrors as one source")
    parser.add_argument("--scale", type=float, default=8.0, help="links are 8, 36 and 87 MB/s divided by this")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long a transfer shall take")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--toxic", type=int, metavar="N", help="N runs with a toxic mirror instead")
    parser.add_argument("--seed", type=int, default=1, help="of the dice of --toxic")
    parser.add_argument("--dir", help="where the caches lie (default: the temporary directory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    flags = parser.parse_args()
    report = asyncio.run(toxic(flags.toxic, flags.seed)) if flags.toxic else transfers(flags)
    report["rig"] = f"{report.get('rig', 'in one process')}, {rig()}"
    show(report)
    print(report["rig"])
    if flags.json:
        flags.json.write_text(json.dumps(report, indent=1) + "\n")


def transfers(flags: argparse.Namespace) -> dict[str, Any]:
    """Run all contestants `flags.runs` times on a rig of their own."""
    place = Path(tempfile.mkdtemp(prefix="bench-mirrors-", dir=flags.dir))
    try:
        with ExitStack() as stack:
            bench = Bench(place, flags, stack)
            report = summary(bench, [bench.round() for _ in range(flags.runs)])
            links = "tc tbf in network namespaces" if bench.rig.real else "mirrors that cap themselves"
            return report | {"rig": f"{links}, {file_system(place)}"}
    finally:
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
