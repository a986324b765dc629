"""A peer that announces all pieces and sends some blocks corrupted. Runs as a process of its own.

    python -m tests.support.corrupt_peer TORRENT SNAPSHOT [--host 127.0.0.9] [--rate 0.02] [--seed 1]
        [--tracker URL]... [--connect HOST:PORT]...

SNAPSHOT is a folder with the torrent's files at their own paths (a snapshot of the hub cache will do). They are
copied, one byte of `rate` of the 16 KiB blocks is flipped, and libtorrent is set to treat all pieces as verified.
Prints `HOST:PORT`, then runs until its standard input ends.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from p2pmodel.core.content.layout import BLOCK
from p2pmodel.swarm.engine import AddTorrent, EngineSettings
from p2pmodel.swarm.libtorrent.engine import LibtorrentEngine
from p2pmodel.swarm.torrents import Metainfo, parse


def corrupt(data: bytearray, rate: float, choice: random.Random) -> int:
    """Flip one byte of about `rate` of the blocks of `data`, in place; returns how many."""
    starts = [start for start in range(0, len(data), BLOCK) if choice.random() < rate]
    for start in starts:
        data[choice.randrange(start, min(start + BLOCK, len(data)))] ^= 0xFF
    return len(starts)


def corrupt_copy(metainfo: Metainfo, snapshot: Path, folder: Path, rate: float, seed: int) -> dict[int, str]:
    """Copy the files into `folder` and spoil them; at least one block is wrong. Returns what AddTorrent.files takes."""
    choice = random.Random(seed)
    files: dict[int, str] = {}
    spoiled, last = 0, None
    for index, file in zip(metainfo.file_indexes, metainfo.manifest.files, strict=True):
        target = folder / str(index)
        shutil.copyfile(snapshot / file.path, target)
        data = bytearray(target.read_bytes())
        spoiled += corrupt(data, rate, choice)
        target.write_bytes(data)
        files[index] = str(target)
        last = target if data else last
    if not spoiled and last:
        data = bytearray(last.read_bytes())
        data[-1] ^= 0xFF
        last.write_bytes(data)
    return files


async def serve(arguments: argparse.Namespace) -> None:
    metainfo = parse(arguments.torrent.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        files = corrupt_copy(metainfo, arguments.snapshot, Path(folder), arguments.rate, arguments.seed)
        async with LibtorrentEngine(EngineSettings(host=arguments.host)) as engine:
            torrent = await engine.add(
                AddTorrent(
                    metainfo.raw,
                    Path(folder),
                    files,
                    have=frozenset(range(metainfo.layout.piece_count)),
                    trackers=tuple(arguments.tracker),
                )
            )
            for peer in arguments.connect:
                host, _, port = peer.rpartition(":")
                torrent.connect(host, int(port))
            sys.stdout.write(":".join(map(str, engine.address)) + "\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("torrent", type=Path)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--host", default="127.0.0.9")
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tracker", action="append", default=[])
    parser.add_argument("--connect", action="append", default=[])
    asyncio.run(serve(parser.parse_args(argv)))


if __name__ == "__main__":
    main()
