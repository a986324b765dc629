"""The benchmark scripts/bench/update: the bytes that an update downloads."""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hf_xet
import numpy as np
from safetensors.numpy import save_file

from p2pmodel.core.content.layout import MIB
from scripts.bench.measurements.update_kills import kill_updates
from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.reports import write_json

Shard = dict[str, np.ndarray[Any, np.dtype[np.uint8]]]
Model = list[Shard]
REPO = "bench/model"
CLOSED = "http://127.0.0.1:9"


class Maker:
    """Makes the old model, and the new one of each kind of change."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._dice = np.random.default_rng(1)
        self._size = options.mib * MIB
        names = [f"layers.{number:03}.weight" for number in range(options.tensors)]
        self.old: Model = [
            {f"shard{number}.{name}": self._tensor() for name in names} for number in range(options.shards)
        ]

    def one_shard(self) -> Model:
        """All tensors of one shard are new."""
        return [*self.old[:-1], {name: self._tensor() for name in self.old[-1]}]

    def few_tensors(self) -> Model:
        """One tensor in a hundred is new, at least one."""
        shards, count = [dict(shard) for shard in self.old], sum(map(len, self.old))
        for number in range(max(1, count // 100)):
            shard = shards[number % len(shards)]
            shard[sorted(shard)[len(shard) // 2]] = self._tensor()
        return shards

    def other_shards(self) -> Model:
        """One tensor more, at the front of the first shard, and each shard begins one tensor later."""
        flat = [("added.weight", self._tensor()), *(each for shard in self.old for each in shard.items())]
        length = -(-len(flat) // len(self.old))
        return [dict(flat[start : start + length]) for start in range(0, len(flat), length)]

    def _tensor(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return self._dice.integers(0, 256, self._size, dtype=np.uint8)


def save(model: Model, folder: Path, metadata: dict[str, str] | None = None) -> None:
    """Write the shards as safetensors."""
    folder.mkdir(parents=True)
    for number, shard in enumerate(model):
        save_file(shard, folder / f"model-{number + 1:05}-of-{len(model):05}.safetensors", metadata)


def changed_bytes(old: Model, new: Model) -> int:
    """Bytes of the tensors that no old tensor of the same name equals."""
    before = {name: tensor for shard in old for name, tensor in shard.items()}
    after = {name: tensor for shard in new for name, tensor in shard.items()}
    return sum(t.nbytes for name, t in after.items() if name not in before or not np.array_equal(before[name], t))


def downloaded(old: Path, new: Path, root: Path) -> int:
    """What a node with `old` in its cache downloads of `new`. Every file is compared afterwards."""
    with ExitStack() as stack:
        peer = environment(root / "peer")
        output([*P2PMODEL, "import", str(old), REPO], peer)
        serve = ["seed", str(new), "--as", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0", "--json"]
        seeder = Program([*P2PMODEL, *serve], stack, env=environment(root / "seeder"), log=root / "seeder.log")
        where = ["--coordinator", seeder.first()["coordinator"], "--endpoint", CLOSED, "--json", "--no-daemon"]
        command = [*P2PMODEL, "fetch", REPO, "--swarm-listen", "127.0.0.11:0", *where]
        done = json.loads(output(command, peer))
    for path in new.iterdir():
        assert (Path(done["path"]) / path.name).read_bytes() == path.read_bytes(), f"{path.name} differs"
    return int(done["from_peers"] + done["from_mirrors"])


def output(command: list[str], env: Mapping[str, str]) -> str:
    """What a successful command prints."""
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def xet(old: Path, new: Path, root: Path) -> int:
    """New bytes by the deduplication of Xet."""
    session = hf_xet.XetSession()
    found = 0
    for folder in (old, new):
        commit = session.new_upload_commit(endpoint=f"local://{root / 'xet'}")
        for path in sorted(folder.iterdir()):
            commit.start_upload_file(str(path), hf_xet.SKIP_SHA256)
        found = int(commit.wait_to_finish().dedup_metrics.new_bytes)
    return found


def zstd(old: Path, new: Path, root: Path) -> int:
    """Bytes of patches, shard by shard."""
    found = 0
    for path in sorted(new.iterdir()):
        patch = root / "patch"
        before = ["--patch-from", str(old / path.name)] if (old / path.name).exists() else []
        subprocess.run(
            ["zstd", "-q", "-f", "--long=27", *before, str(path), "-o", str(patch)], check=True, capture_output=True
        )
        found += patch.stat().st_size
    return found


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json; with --kills only kill updates."""
    maker = Maker(options)
    if options.kills:
        root = Path(tempfile.mkdtemp(prefix="bench-update-", dir=options.dir))
        try:
            save(maker.old, root / "old")
            save([*maker.few_tensors()[:-1], *maker.one_shard()[-1:]], root / "new", {"note": "x" * 1000})
            kill_updates(root, options.kills, options.seed)
        finally:
            shutil.rmtree(root)
        return
    changes: Mapping[str, Callable[[], Model]] = {
        "one shard": maker.one_shard,
        "a key in each header": lambda: maker.old,
        "1 % of the tensors": maker.few_tensors,
        "a tensor more, other shards": maker.other_shards,
    }
    result: dict[str, Any] = {"rig": describe_machine(), "changes": {}}
    print(f"{'MB':28} {'changed':>9} {'p2pmodel':>9} {'xet':>9} {'zstd':>9}")
    for number, (name, change) in enumerate(changes.items()):
        root = Path(tempfile.mkdtemp(prefix="bench-update-", dir=options.dir))
        try:
            old, new, model = root / "old", root / "new", change()
            save(maker.old, old)
            save(model, new, {"note": "x" * 1000} if number == 1 else None)
            row = {
                "size": sum(path.stat().st_size for path in new.iterdir()),
                "changed": changed_bytes(maker.old, model),
                "p2pmodel": downloaded(old, new, root),
                "xet": xet(old, new, root),
                "zstd": zstd(old, new, root),
            }
        finally:
            shutil.rmtree(root)
        result["changes"][name] = row
        columns = ("changed", "p2pmodel", "xet", "zstd")
        print(f"{name:28} " + " ".join(f"{row[column] / 1e6:9.2f}" for column in columns))
    print(json.dumps(result))
    write_json(options.json, result)
