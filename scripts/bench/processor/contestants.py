"""The programs of scripts/bench/cpu, each with the process that sends to it."""

import datetime as dt
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from p2pmodel.swarm.bencode import decode_dict
from p2pmodel.trust.certificates import AuthorityFolder
from scripts.bench.measurements.fetch import SMALL, make_model
from scripts.bench.rigs.machine import HF, environment
from scripts.bench.rigs.programs import ROOT, Program
from scripts.bench.rigs.snapshots import import_directory

REPO = "bench/model"
ONE_FILE = min(SMALL, key=lambda name: SMALL[name])
"""The file that is downloaded alone: the cost of that is the start-up."""
UNREACHED_LIMIT = 2_000_000_000
"""Bytes a second that are not reached here. With a limit a lone node downloads in the swarm."""
BUILD_SECONDS = 600.0
NAMED = [sys.executable, "-m", "scripts.bench.processor.named_threads"]
MIRROR = [*NAMED, "mirror", "serve", "--listen", "127.0.0.2:0", "--json", "-q"]
PLAIN = [sys.executable, "-m", "scripts.bench.processor.plain_peer"]


@dataclass(frozen=True, slots=True)
class CpuContestant:
    """A download into an empty home as a whole, and of ONE_FILE alone; `sender` serves it. `named`: the threads of
    both have names, or are one."""

    sender: Program
    whole: list[str]
    one_file: list[str]
    env: Mapping[str, str]
    named: bool = False


class Senders:
    """One snapshot in `place` at each of the senders: a mirror, a seeder, and a plain libtorrent seeder."""

    def __init__(
        self,
        place: Path,
        size: int,
        files: int,
        stack: ExitStack,
        *,
        engines: int | None = None,
        before: Path | None = None,
    ) -> None:
        self._place, self._stack, self._before = place, stack, before
        self._engines = {} if engines is None else {"P2PMODEL_SWARM_ENGINES": str(engines)}
        self.home = place / "client"
        self.source = place / "source"
        self.size = make_model(self.source, size, files)
        import_directory(self.source, REPO, place / "mirror/hub")
        self._mirror = self._start("mirror", MIRROR)
        self._endpoint = str(self._mirror.first(BUILD_SECONDS)["endpoint"])
        self._torrent = place / "seeder.torrent"
        self._env = environment(self.home) | {"HF_ENDPOINT": self._endpoint}

    def contestants(self) -> dict[str, CpuContestant]:
        """All of them that this machine has, by name."""
        found = {"fetch": self._fetch()}
        if self._before is not None:
            found["before"] = self._fetch("before", self._before)
        found["swarm"] = self._fetch("swarm", more={"P2PMODEL_SWARM_DOWNLOAD_LIMIT": str(UNREACHED_LIMIT)})
        if shutil.which("ssh-keygen"):
            found["signed"] = self._signed()
        found |= {"libtorrent": self._libtorrent(), "hf": self._hf()}
        if shutil.which("aria2c"):
            found["aria2"] = self._aria2()
        if shutil.which("curl"):
            found |= {"http": self._curl(self._mirror, self._endpoint), "https": self._https()}
        return found

    def _signed(self) -> CpuContestant:
        """Seeder and fetcher with a signature in place of the hashes of whole files."""
        key, settings = self._place / "key", self._place / "signed.toml"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (self._place / "allowed_signers").write_text(f"bench {key.with_suffix('.pub').read_text()}")
        settings.write_text(
            f'[trust]\nallowed_signers = "{self._place / "allowed_signers"}"\nfile_hashes = "unless_signed"\n'
            '[[trust.rules]]\nrepos = ["*"]\nsignature = "enforce"\n'
        )
        return self._fetch("signed", more={"P2PMODEL_TRUST_SIGNING_KEY": str(key), "P2PMODEL_CONFIG": str(settings)})

    def _fetch(
        self, name: str = "seeder", tree: Path = ROOT, more: Mapping[str, str] = MappingProxyType({})
    ) -> CpuContestant:
        """Seeder and fetcher of the checkout `tree`, with `more` settings."""
        # Names of threads are given by this checkout, if `tree` is older than that.
        from_tree = {"PYTHONPATH": f"{tree.resolve()}:{ROOT}", "PYTHONSAFEPATH": "1"}
        from_tree |= (self._engines if tree == ROOT else {}) | dict(more)
        torrent, local = self._place / f"{name}.torrent", "127.0.0.3:0" if tree == ROOT else "127.0.0.7:0"
        verb = ["seed", REPO, "--listen", local, "--swarm-listen", local, "--endpoint", self._endpoint]
        seeder = self._start(name, [*NAMED, *verb, "-o", str(torrent), "--json", "-q"], from_tree)
        coordinator = seeder.first(BUILD_SECONDS)["coordinator"]
        fetch = [*NAMED, "fetch", REPO]
        rest = ["--coordinator", coordinator, "--swarm-listen", "127.0.0.4:0", "--endpoint", self._endpoint]
        rest += ["--json", "-q"]
        return CpuContestant(
            seeder, [*fetch, *rest], [*fetch, "--include", ONE_FILE, *rest], self._env | from_tree, named=True
        )

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

    def _https(self) -> CpuContestant:
        folder = AuthorityFolder(self._place / "authority")
        now = dt.datetime.now(dt.UTC)
        folder.init("bench", now=now, days=2)
        issued = folder.issue("mirror", ["127.0.0.2"], now=now, days=1)
        files = ["--tls-cert", str(issued.certificate), "--tls-key", str(issued.key)]
        mirror = self._start("mirror", [*MIRROR, *files])
        endpoint = str(mirror.first(BUILD_SECONDS)["endpoint"])
        return self._curl(mirror, endpoint, "--cacert", str(folder.certificate))

    def _curl(self, mirror: Program, endpoint: str, *options: str) -> CpuContestant:
        plain = ["curl", "-sSf", *options, "--output-dir", str(self.home), "--remote-name-all"]
        urls = [f"{endpoint}/{REPO}/resolve/main/{path.name}" for path in sorted(self.source.iterdir())]
        one_file = f"{endpoint}/{REPO}/resolve/main/{ONE_FILE}"
        return CpuContestant(mirror, [*plain, *urls], [*plain, one_file], self._env, named=True)

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

    def _start(self, name: str, command: list[str], more: Mapping[str, str] | None = None) -> Program:
        env = environment(self._place / name) | (more or {})
        return Program(command, self._stack, env=env, log=self._place / f"{name}.log")


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
