"""How much the v2 hashing pass costs over a bare parallel sha256 pass of the same files.

    scripts/bench/hash [--files 4] [--mib 256] [--runs 5] [--jobs N] [--dir DIR]

Both read the same page-cached files on the same number of threads, in turn; the ratio is the median of the runs'
own ratios. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from p2pmodel.core.layout import MIB, piece_length_for
from p2pmodel.core.manifest import ManifestFile
from p2pmodel.store.files.hashing import hash_snapshot
from p2pmodel.store.files.parallel import default_jobs
from scripts.bench.rigs.machine import bare_sha256_pass, rig


def timed(work: object, *args: object) -> float:
    began = time.perf_counter()
    work(*args)
    return time.perf_counter() - began


def make_files(folder: Path, count: int, size: int) -> list[tuple[ManifestFile, Path]]:
    made = []
    for number in range(count):
        path = folder / f"model-{number:05}.safetensors"
        with path.open("wb") as out:
            for _ in range(size // MIB):
                out.write(os.urandom(MIB))
        made.append((ManifestFile(path.name, size, "0" * 40, "0" * 64), path))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--mib", type=int, default=256, help="size of each file")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=default_jobs())
    parser.add_argument("--dir", help="where to put the files (default: the temporary directory)")
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-hash-", dir=flags.dir))
    try:
        files = make_files(folder, flags.files, flags.mib * MIB)
        total = flags.files * flags.mib * MIB
        piece_length = piece_length_for(total)
        passes = {
            "bare": lambda: bare_sha256_pass([path for _, path in files], flags.jobs),
            "tree": lambda: hash_snapshot(files, piece_length, jobs=flags.jobs),
            "tree_and_content": lambda: hash_snapshot(files, piece_length, contents=True, jobs=flags.jobs),
        }
        seconds: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(flags.runs):
            for name, work in passes.items():
                seconds[name].append(timed(work))
    finally:
        shutil.rmtree(folder)
    result: dict[str, object] = {"rig": rig(), "bytes": total, "piece_length": piece_length, "jobs": flags.jobs}
    for name, times in seconds.items():
        ratios = [mine / bare for mine, bare in zip(times, seconds["bare"], strict=True)]
        speed = total / statistics.median(times) / 1e9
        result[name] = {"gb_per_s": round(speed, 2), "ratio": round(statistics.median(ratios), 3)}
        print(f"{name:18} {speed:5.2f} GB/s   {statistics.median(ratios):.2f} x the bare sha256 pass")
    print(result["rig"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
