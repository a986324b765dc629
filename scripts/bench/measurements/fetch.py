"""The benchmark behind scripts/bench/fetch: the same snapshot, on one machine, by each of

sha256    a bare sha256 pass over the snapshot's page-cached files, on every core: nothing verified costs less
fetch     `p2pmodel fetch` from one seeder through the swarm
hf        `hf download` from the mirror that the seeder was filled from (it checks sizes, no hashes)
seed      `p2pmodel seed --once` from that mirror: mirror, verify, hash, build the torrent

in turn, `--runs` times after one round that is not counted. Seconds are wall-clock, from the start of a process to
its end; ratios are medians of the rounds' own ratios. Every command fills an empty cache on the same file system,
which is deleted again before the next.

Memory is read from /proc/PID/status every 20 ms: `anon` is the highest RssAnon, what the process itself allocated;
`rss` is the highest VmRSS, which counts mapped files (shared libraries) too. Neither counts page cache: that holds
the written files, belongs to the kernel, and is given up when anybody needs the memory.
"""

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

from scripts.bench.rigs.machine import MIB, bare_sha256_pass, file_system, rig

REPO = "bench/model"
P2PMODEL = [sys.executable, "-m", "p2pmodel"]
HF = Path(sys.executable).with_name("hf")
SMALL = {"config.json": 900, "tokenizer.json": 7_000_000, "README.md": 5_000, "generation_config.json": 200}
SAMPLE_EVERY = 0.02
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One process from start to end. Seconds; memory in MiB."""

    seconds: float
    cpu: float = 0.0
    anon: float = 0.0
    rss: float = 0.0
    result: dict[str, Any] = field(default_factory=dict)


class Memory:
    """The highest memory of a process so far, followed in a thread until it ends."""

    def __init__(self, pid: int) -> None:
        self.anon = self.rss = 0.0
        self._status = Path(f"/proc/{pid}/status")
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait for the end of the process."""
        self._thread.join()

    def _follow(self) -> None:
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


class Server:
    """A process that serves until the benchmark ends; its first line on stdout is a JSON object."""

    def __init__(self, verb: list[str], env: dict[str, str]) -> None:
        self._process = subprocess.Popen([*P2PMODEL, *verb], env=env, text=True, stdout=subprocess.PIPE)
        self.memory = Memory(self._process.pid)
        assert self._process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self._process.stdout.readline() or "{}")
        if not self.ready:
            raise SystemExit(f"{' '.join(verb)} ended with exit code {self._process.wait()}")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Bench:
    """One snapshot, one mirror, one seeder, and what is run against them. Everything lies below `place`."""

    def __init__(self, place: Path, size: int, files: int, stack: ExitStack) -> None:
        self._place = place
        self._cores = len(os.sched_getaffinity(0))
        source = place / "source"
        self.size = make_model(source, size, files)
        self._shards = sorted(source.iterdir())
        env = self._env("mirror")
        subprocess.run([*P2PMODEL, "import", str(source), REPO, "-q"], env=env, check=True, stdout=subprocess.DEVNULL)
        self.mirror = self._serve(stack, ["mirror", "serve", "--listen", "127.0.0.2:0", "--json", "-q"], env)
        seed = ["seed", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0", "--json", "-q"]
        self._endpoint = self.mirror.ready["endpoint"]
        self.seeder = self._serve(stack, [*seed, "--endpoint", self._endpoint], self._env("seeder"))

    def contestants(self) -> dict[str, Callable[[], Measured]]:
        """What is measured, in this order."""
        coordinator = self.seeder.ready["coordinator"]
        fetch = ["fetch", REPO, "--coordinator", coordinator, "--swarm-listen", "127.0.0.4:0", "--json", "-q"]
        return {
            "sha256": self._bare,
            "fetch": lambda: self._run([*P2PMODEL, *fetch, "--endpoint", self._endpoint]),
            "hf": lambda: self._run([str(HF), "download", REPO]),
            "seed": lambda: self._run(
                [*P2PMODEL, "seed", REPO, "--once", "--endpoint", self._endpoint, "--json", "-q"]
            ),
        }

    def _bare(self) -> Measured:
        began = time.monotonic()
        bare_sha256_pass(self._shards, self._cores)
        return Measured(time.monotonic() - began)

    def _run(self, command: list[str]) -> Measured:
        """Run `command` with an empty cache to its end, check that it brought everything, and delete that."""
        self._warm_memory()
        env = self._env("client")
        began = time.monotonic()
        process = subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        memory = Memory(process.pid)
        assert process.stdout is not None
        out = process.stdout.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        memory.join()
        if status:
            assert process.stderr is not None
            raise SystemExit(f"{' '.join(command)} failed:\n{process.stderr.read()}")
        self._check(Path(env["HF_HUB_CACHE"]))
        shutil.rmtree(self._place / "client")
        result = json.loads(out) if out.startswith("{") else {}
        if "fetch" in command and result["from_peers"] != self.size:
            raise SystemExit(f"the fetch took only {result['from_peers']} of {self.size} bytes from the seeder")
        return Measured(seconds, usage.ru_utime + usage.ru_stime, memory.anon, memory.rss, result)

    def _check(self, cache: Path) -> None:
        found = sum(path.stat().st_size for path in cache.glob("models--*/snapshots/*/**/*") if path.is_file())
        if found != self.size:
            raise SystemExit(f"the snapshot in {cache} has {found} bytes, not {self.size}")

    def _warm_memory(self) -> None:
        """Fill as much page cache as the command will, and free it: a virtual machine hands memory that was free for
        some seconds back to its host, and whoever is first to use it again waits for that, not for the job."""
        filler, chunk = self._place / "filler", bytes(MIB)
        with filler.open("wb", buffering=0) as out:
            for _ in range(self.size // MIB + 64):
                out.write(chunk)
        filler.unlink()

    def _env(self, name: str) -> dict[str, str]:
        """A node's own, empty surroundings; and nothing that would send `hf` elsewhere or slow it down."""
        home = self._place / name
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_"))}
        own = {"HOME": str(home), "HF_HOME": str(home), "HF_HUB_CACHE": str(home / "hub")}
        if name == "client":
            quick = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK")
            own |= {"HF_ENDPOINT": self._endpoint} | dict.fromkeys(quick, "1")
        return kept | own

    def _serve(self, stack: ExitStack, verb: list[str], env: dict[str, str]) -> Server:
        server = Server(verb, env)
        stack.callback(server.stop)
        return server


def make_model(folder: Path, size: int, files: int) -> int:
    """Write `files` shards of random bytes, `size` bytes together, and a few small files; returns the bytes in all."""
    folder.mkdir(parents=True)
    names = {f"model-{n:05}-of-{files:05}.safetensors": size // files for n in range(1, files + 1)}
    for name, length in (names | SMALL).items():
        with (folder / name).open("wb") as out:
            for start in range(0, length, MIB):
                out.write(os.urandom(min(MIB, length - start)))
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """Measure, print a table, and write the numbers to --json."""
    parser = argparse.ArgumentParser(prog="scripts/bench/fetch", description="fetch against hf download and sha256")
    parser.add_argument("--size-mib", type=int, default=2048, help="size of the snapshot's shards together")
    parser.add_argument("--files", type=int, default=4, help="how many shards")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", help="contestants, comma separated (default: all)")
    parser.add_argument("--dir", help="where the caches lie (default: the temporary directory)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    flags = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="bench-fetch-", dir=flags.dir))
    try:
        with ExitStack() as stack:
            bench = Bench(place, flags.size_mib * MIB, flags.files, stack)
            chosen = bench.contestants()
            if flags.only:
                chosen = {name: work for name, work in chosen.items() if name in ("sha256", *flags.only.split(","))}
            rounds = [{name: work() for name, work in chosen.items()} for _ in range(flags.runs + 1)][1:]
        report = summary(bench, rounds) | {"rig": f"{rig()}, {file_system(place)}, {versions()}"}
    finally:
        shutil.rmtree(place, ignore_errors=True)
    show(report, flags)
    if flags.json:
        flags.json.write_text(json.dumps(report, indent=1) + "\n")


def summary(bench: Bench, rounds: list[dict[str, Measured]]) -> dict[str, Any]:
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
    servers = {"seeder": bench.seeder.memory, "mirror": bench.mirror.memory}
    return report | {key: {"anon_mib": round(m.anon), "rss_mib": round(m.rss)} for key, m in servers.items()}


def show(report: dict[str, Any], flags: argparse.Namespace) -> None:
    """The report as a table."""
    what = f"{flags.files} shards and {len(SMALL)} small files"
    print(f"{report['bytes'] / 1e9:.2f} GB in {what}, medians of {flags.runs} runs")
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
    """The versions that matter."""
    asked = [
        sys.executable,
        "-c",
        "import libtorrent, huggingface_hub as h; print(libtorrent.__version__, h.__version__)",
    ]
    lt, hub = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()
    return f"libtorrent {lt}, huggingface_hub {hub}"


if __name__ == "__main__":
    main()
