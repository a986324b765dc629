"""The benchmark scripts/bench/fetch: fetch against `hf download` and a bare sha256 pass."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench.rigs.baseline import MIB, bare_sha256_pass
from scripts.bench.rigs.machine import HF, P2PMODEL, describe_machine, environment, file_system
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import check_published, import_directory, total_size, write_random

REPO = "bench/model"
SMALL = {"config.json": 900, "tokenizer.json": 7_000_000, "README.md": 5_000, "generation_config.json": 200}
SAMPLE_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class FetchSample:
    """One process from start to end. Seconds; memory in MiB."""

    seconds: float
    cpu: float = 0.0
    anon: float = 0.0
    rss: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


class PeakMemory:
    """The highest memory of a process so far in MiB, sampled in a thread until the process ends."""

    def __init__(self, pid: int) -> None:
        self.anon = self.rss = 0.0
        self._status = Path(f"/proc/{pid}/status")
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the process."""
        self._thread.join()

    def _sample(self) -> None:
        while fields := self._read():
            self.anon = max(self.anon, fields["RssAnon"])
            self.rss = max(self.rss, fields["VmRSS"])
            time.sleep(SAMPLE_EVERY)

    def _read(self) -> dict[str, float]:
        try:
            lines = self._status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return {}
        # A zombie has no memory, and no such lines.
        return {
            key: int(value.split()[0]) / 1024 for key, _, value in (x.partition(":") for x in lines) if "kB" in value
        }


class FetchBench:
    """One snapshot, one mirror, one seeder, and the contestants. All files are below `place`."""

    def __init__(self, place: Path, size: int, files: int, stack: ExitStack) -> None:
        self._place = place
        self._stack = stack
        self._cores = len(os.sched_getaffinity(0))
        source = place / "source"
        self.size = make_model(source, size, files)
        self._shards = sorted(source.iterdir())
        import_directory(source, REPO, place / "mirror/hub")
        self.mirror, ready = self._serve("mirror", ["mirror", "serve", "--listen", "127.0.0.2:0"])
        self._endpoint = ready["endpoint"]
        seed = ["seed", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0", "--endpoint", self._endpoint]
        self.seeder, ready = self._serve("seeder", seed)
        self._coordinator = ready["coordinator"]

    def contestants(self) -> dict[str, Callable[[], FetchSample]]:
        """The measurements, in their order."""
        fetch = ["fetch", REPO, "--coordinator", self._coordinator, "--swarm-listen", "127.0.0.4:0", "--json", "-q"]
        seed = ["seed", REPO, "--once", "--json", "-q"]
        return {
            "sha256": self._bare,
            "fetch": lambda: self._run([*P2PMODEL, *fetch, "--endpoint", self._endpoint]),
            "hf": lambda: self._run([HF, "download", REPO]),
            "seed": lambda: self._run([*P2PMODEL, *seed, "--endpoint", self._endpoint]),
        }

    def _bare(self) -> FetchSample:
        began = time.monotonic()
        bare_sha256_pass(self._shards, self._cores)
        return FetchSample(time.monotonic() - began)

    def _run(self, command: list[str]) -> FetchSample:
        """Run `command` with an empty cache to its end, check the result, and delete it."""
        self._warm_memory()
        home = self._place / "client"
        env = environment(home) | {"HF_ENDPOINT": self._endpoint}
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        memory = PeakMemory(process.pid)
        assert process.stdout is not None
        out = process.stdout.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        memory.join()
        if status:
            assert process.stderr is not None
            raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read()}")
        check_published(home / "hub", self.size)
        shutil.rmtree(home)
        result = json.loads(out) if out.startswith("{") else {}
        if "fetch" in command and result["from_peers"] != self.size:
            raise SystemExit(f"the fetch took only {result['from_peers']} of {self.size} bytes from the seeder")
        return FetchSample(seconds, usage.ru_utime + usage.ru_stime, memory.anon, memory.rss, result)

    def _warm_memory(self) -> None:
        """Fill as much page cache as the command will, and free it.

        A virtual machine returns memory to its host after some seconds without use. The next process that uses the
        memory would wait for it, and the wait is not part of the measurement.
        """
        filler, chunk = self._place / "filler", bytes(MIB)
        with filler.open("wb", buffering=0) as out:
            for _ in range(self.size // MIB + 64):
                out.write(chunk)
        filler.unlink()

    def _serve(self, name: str, verb: list[str]) -> tuple[PeakMemory, dict[str, Any]]:
        env, log = environment(self._place / name), self._place / f"{name}.log"
        server = Program([*P2PMODEL, *verb, "--json", "-q"], self._stack, env=env, log=log)
        memory = PeakMemory(server.pid)
        return memory, server.first(600)


def make_model(folder: Path, size: int, files: int) -> int:
    """Write `files` shards of random bytes, `size` bytes together, and a few small files. Returns all bytes."""
    folder.mkdir(parents=True)
    names = {f"model-{n:05}-of-{files:05}.safetensors": size // files for n in range(1, files + 1)}
    for name, length in (names | SMALL).items():
        write_random(folder / name, length)
    return total_size(folder)


def summary(bench: FetchBench, rounds: list[dict[str, FetchSample]]) -> dict[str, Any]:
    """Medians over the rounds, ratios of each round's own times, and the highest memory of all rounds."""
    report: dict[str, Any] = {"bytes": bench.size}
    for name in rounds[0]:
        runs = [measured[name] for measured in rounds]
        report[name] = {
            "seconds": round(statistics.median(run.seconds for run in runs), 3),
            "cpu": round(statistics.median(run.cpu for run in runs), 3),
            "anon_mib": round(max(run.anon for run in runs)),
            "rss_mib": round(max(run.rss for run in runs)),
            "runs": [asdict(run) for run in runs],
        }
        for other in ("sha256", "hf"):
            if other in rounds[0]:
                ratios = [measured[name].seconds / measured[other].seconds for measured in rounds]
                report[name][f"of_{other}"] = round(statistics.median(ratios), 2)
    servers = {"seeder": bench.seeder, "mirror": bench.mirror}
    return report | {key: {"anon_mib": round(m.anon), "rss_mib": round(m.rss)} for key, m in servers.items()}


def show(report: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the report as a table."""
    what = f"{options.files} shards and {len(SMALL)} small files"
    print(f"{report['bytes'] / 1e9:.2f} GB in {what}, medians of {options.runs} runs")
    print(f"{'':8}{'seconds':>8}{'GB/s':>7}{'CPU s':>7}{'of hf':>7}{'of sha256':>11}{'anon MiB':>10}{'rss MiB':>9}")
    for name in ("sha256", "fetch", "hf", "seed"):
        if name in report:
            row = report[name]
            speed, of_hf = report["bytes"] / row["seconds"] / 1e9, row.get("of_hf", "-")
            print(
                f"{name:8}{row['seconds']:8.2f}{speed:7.2f}{row['cpu']:7.2f}{of_hf:>7}{row['of_sha256']:>11}"
                f"{row['anon_mib'] or '-':>10}{row['rss_mib'] or '-':>9}"
            )
    for name in ("seeder", "mirror"):
        row = report[name]
        print(f"{name:8}{'serving':>8}{'':7}{'':7}{'':7}{'':11}{row['anon_mib']:>10}{row['rss_mib']:>9}")
    print(report["rig"])


def versions() -> str:
    """The versions of libtorrent and huggingface_hub."""
    program = "import libtorrent, huggingface_hub as h; print(libtorrent.__version__, h.__version__)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    lt, hub = done.stdout.split()
    return f"libtorrent {lt}, huggingface_hub {hub}"


def main(options: argparse.Namespace) -> None:
    """Measure, print a table, and write the figures to --json."""
    place = Path(tempfile.mkdtemp(prefix="bench-fetch-", dir=options.dir))
    try:
        with ExitStack() as stack:
            bench = FetchBench(place, options.size_mib * MIB, options.files, stack)
            chosen = bench.contestants()
            if options.only:
                chosen = {name: work for name, work in chosen.items() if name in ("sha256", *options.only.split(","))}
            rounds = [{name: work() for name, work in chosen.items()} for _ in range(options.runs + 1)][1:]
        report = summary(bench, rounds) | {"rig": f"{describe_machine()}, {file_system(place)}, {versions()}"}
    finally:
        shutil.rmtree(place, ignore_errors=True)
    show(report, options)
    write_json(options.json, report)
