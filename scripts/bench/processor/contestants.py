"""The programs of scripts/bench/cpu, each with the process that sends to it."""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.swarm.bencode import decode_dict
from scripts.bench.measurements.fetch import SMALL, make_model
from scripts.bench.rigs.machine import HF, P2PMODEL, environment
from scripts.bench.rigs.programs import Program
from scripts.bench.rigs.snapshots import import_directory

REPO = "bench/model"
ONE_FILE = min(SMALL, key=lambda name: SMALL[name])
"""The file that is downloaded alone: the cost of that is the start-up."""
BUILD_SECONDS = 600.0
NAMED = [sys.executable, "-m", "scripts.bench.processor.named_threads"]
PLAIN = [sys.executable, "-m", "scripts.bench.processor.plain_peer"]


@dataclass(frozen=True, slots=True)
class CpuContestant:
    """A download into an empty home as a whole, and of ONE_FILE alone; `sender` serves it. `named`: the threads of
    both have names."""

    sender: Program
    whole: list[str]
    one_file: list[str]
    env: Mapping[str, str]
    named: bool = False


class Senders:
    """One snapshot in `place` at each of the senders: a mirror, a seeder, and a plain libtorrent seeder."""

    def __init__(self, place: Path, size: int, files: int, stack: ExitStack) -> None:
        self._place, self._stack = place, stack
        self.home = place / "client"
        self.source = place / "source"
        self.size = make_model(self.source, size, files)
        import_directory(self.source, REPO, place / "mirror/hub")
        self._mirror = self._start("mirror", [*P2PMODEL, "mirror", "serve", "--listen", "127.0.0.2:0", "--json", "-q"])
        self._endpoint = str(self._mirror.first(BUILD_SECONDS)["endpoint"])
        self._torrent = place / "model.torrent"
        self._env = compiling(environment(self.home)) | {"HF_ENDPOINT": self._endpoint}

    def contestants(self) -> dict[str, CpuContestant]:
        """All of them that this machine has, by name."""
        found = {"fetch": self._fetch(), "libtorrent": self._libtorrent(), "hf": self._hf()}
        if shutil.which("aria2c"):
            found["aria2"] = self._aria2()
        return found

    def _fetch(self) -> CpuContestant:
        verb = ["seed", REPO, "--listen", "127.0.0.3:0", "--swarm-listen", "127.0.0.3:0", "--endpoint", self._endpoint]
        seeder = self._start("seeder", [*NAMED, *verb, "-o", str(self._torrent), "--json", "-q"])
        coordinator = seeder.first(BUILD_SECONDS)["coordinator"]
        fetch = [*NAMED, "fetch", REPO]
        rest = ["--coordinator", coordinator, "--swarm-listen", "127.0.0.4:0", "--endpoint", self._endpoint]
        rest += ["--json", "-q"]
        return CpuContestant(seeder, [*fetch, *rest], [*fetch, ONE_FILE, *rest], self._env, named=True)

    def _libtorrent(self) -> CpuContestant:
        # The names of the files are below a folder of the torrent's name.
        shared = self._place / "plain"
        shared.mkdir()
        (shared / torrent_name(self._torrent)).symlink_to(self.source)
        seeder = self._start("plain", [*PLAIN, str(self._torrent), str(shared), "127.0.0.5"])
        port = seeder.first(BUILD_SECONDS)["port"]
        whole = [*PLAIN, str(self._torrent), str(self.home), "127.0.0.6", "--from", f"{port}@127.0.0.5"]
        return CpuContestant(seeder, whole, [*whole, "--one-file"], self._env)

    def _hf(self) -> CpuContestant:
        whole = [HF, "download", REPO]
        return CpuContestant(self._mirror, whole, [*whole, ONE_FILE], self._env)

    def _aria2(self) -> CpuContestant:
        plain = ["aria2c", "--no-conf", "-q", "--file-allocation=none", "-x4", "-s4", "-j4", f"--dir={self.home}", "-i"]
        every = sorted(path.name for path in self.source.iterdir())
        whole = self._list_of_files("all.txt", every)
        one_file = self._list_of_files("one.txt", [ONE_FILE])
        return CpuContestant(self._mirror, [*plain, str(whole)], [*plain, str(one_file)], self._env)

    def _list_of_files(self, name: str, files: list[str]) -> Path:
        entries = []
        for file in files:
            with (self.source / file).open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            url = f"{self._endpoint}/{REPO}/resolve/main/{file}"
            entries.append(f"{url}\n  out={file}\n  checksum=sha-256={digest}\n")
        path = self._place / name
        path.write_text("".join(entries))
        return path

    def _start(self, name: str, command: list[str]) -> Program:
        return Program(
            command, self._stack, env=compiling(environment(self._place / name)), log=self._place / f"{name}.log"
        )


def compiling(env: Mapping[str, str]) -> dict[str, str]:
    """`env`, with which Python keeps compiled modules, as by default."""
    return {key: value for key, value in env.items() if key != "PYTHONDONTWRITEBYTECODE"}


def torrent_name(torrent: Path) -> str:
    """The name of the torrent, which is that of its folder."""
    info = decode_dict(torrent.read_bytes())[0][b"info"]
    assert isinstance(info, dict)
    name = info[b"name"]
    assert isinstance(name, bytes)
    return name.decode()


def from_peers(output: str) -> int | None:
    """The bytes that a fetch took from peers by its JSON; None for another program."""
    return int(json.loads(output)["from_peers"]) if output.startswith("{") else None
