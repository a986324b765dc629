"""The benchmark scripts/bench/idle: a daemon at rest."""

import argparse
import hashlib
import json
import statistics
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.merkle import FileTree, tree_of
from p2pmodel.core.content.names import RepoId
from p2pmodel.store.cache import HubCache
from p2pmodel.store.publish import publish_blob, publish_snapshot
from p2pmodel.store.state.transfer_records import TransferRecord, TransferRecords
from p2pmodel.swarm.torrents import build, layout_of
from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json

SHARDS = 4
START_WITHIN = 60.0
NO_MIRROR = "http://127.0.0.1:9"


@dataclass(frozen=True, slots=True)
class IdleSample:
    """Seconds from the start of the process until it is ready, and until it serves all snapshots.

    Then its share of one core, and MiB of resident memory.
    """

    ready: float
    serving: float
    core: float
    rss: float


def make_snapshot(cache: HubCache, records: TransferRecords, number: int, size: int) -> int:
    """A complete snapshot of `size` bytes in sparse files. Returns the number of its pieces."""
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


def measure(home: Path, env: dict[str, str], snapshots: int, seconds: float) -> IdleSample:
    """One daemon from its start to its end."""
    listen = ["--swarm-listen", "127.0.0.1:0", "--hub-listen", "127.0.0.1:0", "--endpoint", NO_MIRROR]
    began = time.monotonic()
    with ExitStack() as stack:
        daemon = Program([*P2PMODEL, "daemon", *listen, "--json", "-q"], stack, env=env, log=home / "daemon.log")
        daemon.first()
        ready = daemon.lines[0][0] - began
        while len(serving(env)) < snapshots:
            if time.monotonic() - began > START_WITHIN:
                raise SystemExit(f"only {len(serving(env))} of {snapshots} are served after {START_WITHIN:g} s")
        served = time.monotonic() - began
        time.sleep(2)  # for the rest of the start
        spent, since = daemon.cost(), time.monotonic()
        time.sleep(seconds)
        core = (daemon.cost() - spent) / (time.monotonic() - since)
        return IdleSample(ready, served, core, daemon.memory("VmRSS") / (1 << 20))


def serving(env: dict[str, str]) -> list[str]:
    """The repositories that the daemon serves."""
    done = subprocess.run([*P2PMODEL, "status", "--json"], env=env, check=True, capture_output=True, text=True)
    return [view["repo"] for view in json.loads(done.stdout)["transfers"] if view["state"] == "seeding"]


def main(options: argparse.Namespace) -> None:
    """Make the snapshots, run, and print medians."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as place:
        home = Path(place)
        env = environment(home) | {"P2PMODEL_STATE_DIR": str(home / "state")}
        cache, records = HubCache(home / "hub"), TransferRecords(home / "state" / "node" / "transfers")
        pieces = sum(make_snapshot(cache, records, n, int(options.gb * 1e9)) for n in range(options.snapshots))
        runs = [measure(home, env, options.snapshots, options.seconds) for _ in range(options.runs)]
    print(f"{options.snapshots} snapshots of {options.gb:g} GB, {pieces} pieces; medians of {options.runs} runs")
    median = {name: statistics.median(asdict(run)[name] for run in runs) for name in asdict(runs[0])}
    print(f"ready after {median['ready']:.2f} s, all served {median['serving']:.2f} s after the start")
    print(f"at rest: {100 * median['core']:.2f} % of one core, {median['rss']:.0f} MiB")
    machine = describe_machine()
    print(machine)
    write_json(options.json, {"rig": machine, "pieces": pieces, "median": median, "runs": [*map(asdict, runs)]})
