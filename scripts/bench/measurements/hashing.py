"""The benchmark scripts/bench/hash: the hashing pass against a bare sha256 pass."""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from p2pmodel.core.content.layout import MIB, piece_length_for
from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.store.files.hashing import hash_snapshot
from p2pmodel.store.files.parallel import default_jobs
from scripts.bench.rigs.baseline import bare_sha256_pass
from scripts.bench.rigs.machine import describe_machine
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import write_random


def make_files(folder: Path, count: int, size: int) -> list[tuple[ManifestFile, Path]]:
    """`count` files of `size` random bytes, each with an entry for a manifest."""
    made = []
    for number in range(count):
        path = folder / f"model-{number:05}.safetensors"
        write_random(path, size)
        made.append((ManifestFile(path.name, size, "0" * 40, "0" * 64), path))
    return made


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main(options: argparse.Namespace) -> None:
    """Measure, print, and write the figures to --json."""
    jobs = options.jobs or default_jobs()
    folder = Path(tempfile.mkdtemp(prefix="bench-hash-", dir=options.dir))
    try:
        files = make_files(folder, options.files, options.mib * MIB)
        total = options.files * options.mib * MIB
        piece_length = piece_length_for(total)
        passes: dict[str, Callable[[], object]] = {
            "bare": lambda: bare_sha256_pass([path for _, path in files], jobs),
            "tree": lambda: hash_snapshot(files, piece_length, jobs=jobs),
            "tree_and_content": lambda: hash_snapshot(files, piece_length, contents=True, jobs=jobs),
        }
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(options.runs):
            for name, work in passes.items():
                seconds[name].append(_timed(work))
    finally:
        shutil.rmtree(folder)
    result: dict[str, object] = {"rig": describe_machine(), "bytes": total, "piece_length": piece_length, "jobs": jobs}
    for name, times in seconds.items():
        ratios = [mine / bare for mine, bare in zip(times, seconds["bare"], strict=True)]
        speed = total / statistics.median(times) / 1e9
        result[name] = {"gb_per_s": round(speed, 2), "ratio": round(statistics.median(ratios), 3)}
        print(f"{name:18} {speed:5.2f} GB/s   {statistics.median(ratios):.2f} x the bare sha256 pass")
    print(result["rig"])
    print(json.dumps(result))
    write_json(options.json, result)
