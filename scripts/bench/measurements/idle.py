"""A daemon at rest: how long it takes to serve what it holds, and what it costs while nobody takes anything."""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from p2pmodel.core.manifest import Manifest, ManifestFile
from p2pmodel.core.merkle import FileTree, tree_of
from p2pmodel.core.names import RepoId
from p2pmodel.store.cache import HubCache
from p2pmodel.store.publish import publish_blob, publish_snapshot
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords
from p2pmodel.swarm.torrents import build, layout_of
from scripts.bench.rigs.machine import P2PMODEL, environment, rig

SHARDS = 4
START_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds from the process's start until it says that it is ready, and until all is served; then the share of one
    core, and MiB of resident memory."""

    ready: float
    serving: float
    core: float
    rss: float


def make_snapshot(cache: HubCache, records: TransferRecords, number: int, size: int) -> int:
    """A complete snapshot of `size` bytes, none of which is on the disk; the number of its pieces."""
    names = [f"model-{shard:05}.safetensors" for shard in range(SHARDS)]
    files = tuple(ManifestFile(n, size // SHARDS, _hex(f"{number} {n}")[:40], _hex(f"{number} {n}")) for n in names)
    manifest = Manifest(RepoId(f"bench/model-{number}"), _hex(str(number))[:40], files)
    layout, repo = layout_of(manifest), cache.repo(manifest.repo)
    for index, file in enumerate(files):
        staged = repo.staging(manifest.commit).path_of(index, file)
        with staged.open("wb") as out:
            out.truncate(file.size)
        publish_blob(repo, file, staged)
    publish_snapshot(repo, manifest, files, ["main"])
    repo.staging(manifest.commit).clear()
    root = hashlib.sha256(b"a piece").digest()
    trees: dict[str, FileTree] = {s.path: tree_of([root] * len(s.pieces), layout.piece_length) for s in layout.spans}
    record = TransferRecord(manifest.repo, manifest.commit, ("main",), complete=True, added=float(number))
    records.save(record)
    records.save_torrent(record.id, build(manifest, trees))
    return layout.piece_count


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def measure(env: dict[str, str], snapshots: int, seconds: float) -> Measured:
    """One daemon from its start to its end."""
    began = time.monotonic()
    verb = [
        "daemon",
        "--swarm-listen",
        "127.0.0.1:0",
        "--hub-listen",
        "127.0.0.1:0",
        "--endpoint",
        "http://127.0.0.1:9",
    ]
    daemon = subprocess.Popen([*P2PMODEL, *verb, "--json", "-q"], env=env, text=True, stdout=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        if not daemon.stdout.readline():
            raise SystemExit(f"the daemon ended with exit code {daemon.wait()}")
        ready = time.monotonic() - began
        while len(serving(env)) < snapshots:
            if time.monotonic() - began > START_WITHIN:
                raise SystemExit(f"only {len(serving(env))} of {snapshots} are served after {START_WITHIN:g} s")
        served = time.monotonic() - began
        time.sleep(2)  # what is left of the start
        spent, since = cpu_seconds(daemon.pid), time.monotonic()
        time.sleep(seconds)
        core = (cpu_seconds(daemon.pid) - spent) / (time.monotonic() - since)
        return Measured(ready, served, core, resident_mib(daemon.pid))
    finally:
        daemon.terminate()
        daemon.wait(20)


def serving(env: dict[str, str]) -> list[str]:
    """Repositories that the daemon serves."""
    done = subprocess.run([*P2PMODEL, "status", "--json"], env=env, check=True, capture_output=True, text=True)
    return [view["repo"] for view in json.loads(done.stdout)["transfers"] if view["state"] == "seeding"]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Memory that a process has, files that it maps included."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Make the snapshots, run, and print medians."""
    parser = argparse.ArgumentParser(prog="scripts/bench/idle", description=__doc__)
    parser.add_argument("--snapshots", type=int, default=20)
    parser.add_argument("--gb", type=float, default=10.0, help="size of each")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long it is watched")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number here")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as place:
        home = Path(place)
        env = environment(home) | {"P2PMODEL_STATE_DIR": str(home / "state")}
        cache, records = HubCache(home / "hub"), TransferRecords(home / "state" / "node" / "transfers")
        pieces = sum(make_snapshot(cache, records, n, int(flags.gb * 1e9)) for n in range(flags.snapshots))
        runs = [measure(env, flags.snapshots, flags.seconds) for _ in range(flags.runs)]
    print(f"{flags.snapshots} snapshots of {flags.gb:g} GB, {pieces} pieces; medians of {flags.runs} runs")
    median = {name: statistics.median(asdict(run)[name] for run in runs) for name in asdict(runs[0])}
    print(f"ready after {median['ready']:.2f} s, all served {median['serving']:.2f} s after the start")
    print(f"at rest: {100 * median['core']:.2f} % of one core, {median['rss']:.0f} MiB")
    print(rig())
    if flags.json:
        flags.json.write_text(
            json.dumps({"rig": rig(), "pieces": pieces, "median": median, "runs": [*map(asdict, runs)]})
        )


if __name__ == "__main__":
    sys.exit(main())
