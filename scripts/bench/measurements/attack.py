"""The benchmark scripts/bench/attack: honest fetches beside attackers."""

import argparse
import asyncio
import gzip
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from p2pmodel.http.runner import ListeningRunner
from scripts.bench.rigs.machine import P2PMODEL, describe_machine, environment
from scripts.bench.rigs.programs import Program, stop_all
from scripts.bench.rigs.reports import write_json
from scripts.bench.rigs.snapshots import write_model
from tests.support.hostile_leaseholders import hostile_leaseholders
from tests.support.in_thread import in_thread

REPO = "bench/model"
LEASEHOLDERS = 40
IDLE = 200
"""Idle connections to each server."""
HOSTILE = "127.0.0.66"
"""The address of the attackers' connections."""
FETCH_SECONDS = 600.0
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token files of the cluster, and their contents."""

    member: Path
    publisher: Path

    @classmethod
    def make(cls, folder: Path) -> "Tokens":
        """New tokens, each in a file that only this user reads."""
        found = cls(folder / "member", folder / "publisher")
        for path in (found.member, found.publisher):
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16))
        return found

    @property
    def env(self) -> dict[str, str]:
        """The environment of a node."""
        return {"P2PMODEL_COORDINATOR_TOKEN_FILE": str(self.member), "P2PMODEL_SWARM_TRUST": "mirrors"}

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """What no attacker may see."""
        return self.member.read_bytes(), self.publisher.read_bytes()


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds until the last honest node was ready, wrong files in all, failed fetches."""

    seconds: float
    wrong: int
    failed: int


class ClusterUnderAttack:
    """The honest servers. `place` holds all files."""

    def __init__(self, options: argparse.Namespace, place: Path, stack: ExitStack) -> None:
        self.place = place
        self.source = place / "source"
        self.source.mkdir()
        self.size = write_model(self.source, options.size_mb * 1_000_000)
        self.tokens = Tokens.make(place)
        self._options = options
        self._stack = stack
        rate = str(int(options.mb_s * 1e6))
        cache = place / "mirror"
        env = environment(place / "home") | self.tokens.env
        imported = [*P2PMODEL, "import", str(self.source), REPO, "--cache-dir", str(cache), "-q"]
        subprocess.run(imported, env=env, check=True, stdout=subprocess.DEVNULL)
        serve = ("mirror", "serve", "--cache-dir", str(cache), "--listen", "127.0.0.2:0")
        self.mirror = self._server("mirror", env, *serve, "--max-bytes-per-second", rate)
        tokens = ("--token-file", str(self.tokens.member))
        publish = ("--publish-token-file", str(self.tokens.publisher))
        self.coordinator = self._server("coordinator", env, "coordinator", "--listen", "127.0.0.3:0", *tokens, *publish)
        self.url = str(self.coordinator.first()["url"])
        self.endpoint = str(self.mirror.first()["endpoint"])
        where = ("--listen", "127.0.0.4:0", "--swarm-listen", "127.0.0.4:0", "--upload-limit", rate)
        env = env | {"P2PMODEL_PUBLISH_TOKEN_FILE": str(self.tokens.publisher)}
        env["HF_HUB_CACHE"] = str(cache)
        at = ("--endpoint", self.endpoint, "--coordinator", self.url)
        self.seeder = self._server("seeder", env, "seed", REPO, *where, *at, *tokens)
        self.seeded = self.seeder.first()

    @property
    def servers(self) -> dict[str, Program]:
        """The honest servers by name."""
        return {"mirror": self.mirror, "coordinator": self.coordinator, "seeder": self.seeder}

    def fetch(self, name: str, *mirrors: str) -> Sample:
        """All honest nodes fetch at the same time, with new caches."""
        began, nodes, homes = time.monotonic(), [], []
        with ExitStack() as stack:
            for number in range(self._options.nodes):
                home = self.place / f"{name}-{number}"
                home.mkdir()
                homes.append(home)
                endpoints = [part for mirror in (*mirrors, self.endpoint) for part in ("--endpoint", mirror)]
                address = ("--swarm-listen", f"127.0.0.{11 + number}:6881", "--coordinator", self.url)
                command = [*P2PMODEL, "fetch", REPO, *address, *endpoints, "--json", "--no-daemon", "--seed-time=600"]
                env = environment(home) | self.tokens.env
                nodes.append(Program(command, stack, env=env, log=home / "log"))
            deadline = began + FETCH_SECONDS
            while time.monotonic() < deadline and not all(node.lines or node.ended for node in nodes):
                time.sleep(0.05)
            ready = [node.lines[0][0] - began for node in nodes if node.lines]
            wrong = sum(self._wrong(home) for home in homes)
            stop_all(nodes)
        return Sample(max(ready, default=FETCH_SECONDS), wrong, len(nodes) - len(ready))

    def leaks(self) -> list[str]:
        """Files and command lines that hold a token."""
        own = {self.tokens.member, self.tokens.publisher}
        found = [
            str(path.relative_to(self.place))
            for path in self.place.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and path not in own
            and path.stat().st_size < MIB
            and any(secret in path.read_bytes() for secret in self.tokens.secrets)
        ]
        for line in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if any(secret in line.read_bytes() for secret in self.tokens.secrets):
                    found.append(str(line))
        return found

    def _wrong(self, home: Path) -> int:
        """Files in the cache of a node that another program would trust, and that differ from the source."""
        published = [path for path in home.glob("hub/models--*/snapshots/*/**/*") if path.is_file()]
        right = {path.name: path for path in self.source.iterdir()}
        return sum(path.read_bytes() != right[path.name].read_bytes() for path in published)

    def _server(self, name: str, env: dict[str, str], *command: str) -> Program:
        return Program([*P2PMODEL, *command, "--json", "-q"], self._stack, env=env, log=self.place / f"{name}.log")


# -- attackers -------------------------------------------------------------------------------------------------------


async def _bomb(_request: web.Request) -> web.Response:
    body = gzip.compress(b"[" * (64 * MIB))
    return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


async def _wrong_bytes(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"X-Repo-Commit": "0" * 40, "ETag": f'"{"0" * 64}"'})
    await response.prepare(request)
    with suppress(ConnectionError):
        while True:
            await response.write(os.urandom(1 << 16))
            await asyncio.sleep(0.05)
    return response


@asynccontextmanager
async def hostile_mirror(address: tuple[str, int]) -> AsyncIterator[None]:
    """A mirror with endless metadata and with random bytes as files."""
    app = web.Application()
    app.router.add_get("/api/{rest:.*}", _bomb)
    app.router.add_get("/{rest:.*}", _wrong_bytes)
    runner = ListeningRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await runner.listen(host=address[0], port=address[1])
        yield
    finally:
        await runner.cleanup()


async def stranger(cluster: ClusterUnderAttack) -> None:
    """Announce, publish and withdraw without a token and with wrong ones, until cancelled."""
    info_hash = str(cluster.seeded["info_hash"])
    announce = {"info_hash": "x" * 20, "peer_id": "-XX0000-abcdefghijkl", "port": 6, "ip": "192.0.2.1", "left": 0}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(HOSTILE, 0))) as session:
        while True:
            wrong = {"Authorization": f"Bearer {secrets.token_hex(16)}"}
            for method, path, headers in (
                ("GET", "/announce", {}),
                ("GET", f"/announce/{secrets.token_hex(16)}", {}),
                ("PUT", "/catalog?revision=main", wrong),
                ("DELETE", f"/catalog/torrents/{info_hash}.torrent", wrong),
                ("GET", "/catalog", {"Host": "evil.example", "Origin": "http://evil.example"}),
            ):
                parameters = announce if path.startswith("/announce") else None
                with suppress(aiohttp.ClientError, TimeoutError):
                    timeout = aiohttp.ClientTimeout(5)
                    async with session.request(
                        method, cluster.url + path, params=parameters, headers=headers, data=b"x", timeout=timeout
                    ) as answer:
                        assert answer.status >= 400 or path.startswith("/announce"), f"{method} {path} was allowed"
            await asyncio.sleep(0.05)


@asynccontextmanager
async def attackers(
    cluster: ClusterUnderAttack, address: tuple[str, int], leaseholders_from: str
) -> AsyncIterator[None]:
    """All attackers that are connections of this process."""
    token = cluster.tokens.member.read_text()
    url = f"{cluster.url}/leases/{cluster.seeded['info_hash']}"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(hostile_mirror(address))
        await stack.enter_async_context(hostile_leaseholders(url, LEASEHOLDERS, token=token, source=leaseholders_from))
        task = asyncio.ensure_future(stranger(cluster))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@contextmanager
def idle_connections(cluster: ClusterUnderAttack) -> Iterator[None]:
    """IDLE connections to each server, without a byte."""
    with ExitStack() as stack:
        for url in (cluster.url, cluster.endpoint, str(cluster.seeded["coordinator"])):
            host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
            for _ in range(IDLE):
                with suppress(OSError):
                    stack.enter_context(socket.create_connection((host, int(port)), 5, (HOSTILE, 0)))
        yield


@contextmanager
def corrupt_peer(cluster: ClusterUnderAttack) -> Iterator[None]:
    """A peer that claims all pieces and sends wrong blocks."""
    with ExitStack() as stack:
        torrent = cluster.place / "attack.torrent"
        env = environment(cluster.place / "home") | cluster.tokens.env | {"HF_HUB_CACHE": str(cluster.place / "mirror")}
        create = [*P2PMODEL, "torrent", "create", REPO, "-o", str(torrent), "-q"]
        subprocess.run(create, env=env, check=True, stdout=subprocess.DEVNULL)
        peer = ["tests.support.corrupt_peer", str(torrent), str(cluster.source), "--host", HOSTILE, "--rate", "0.2"]
        peer += [part for n in range(8) for part in ("--connect", f"127.0.0.{11 + n}:6881")]
        process = subprocess.Popen(
            [sys.executable, "-m", *peer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert process.stdout is not None
        process.stdout.readline()
        yield


def main(options: argparse.Namespace) -> None:
    """Measure, print the ratio and what the attackers got, and write the figures."""
    print(describe_machine())
    with tempfile.TemporaryDirectory(prefix="p2pmodel-attack-") as folder, ExitStack() as stack:
        cluster = ClusterUnderAttack(options, Path(folder), stack)
        quiet = [cluster.fetch(f"quiet{run}") for run in range(options.runs)]
        with socket.create_server((HOSTILE, 0)) as probe:
            address = probe.getsockname()[:2]
        source = "" if options.same_address else HOSTILE
        with in_thread(attackers(cluster, address, source)), idle_connections(cluster), corrupt_peer(cluster):
            hostile = f"http://{address[0]}:{address[1]}"
            attacked = [cluster.fetch(f"attacked{run}", hostile) for run in range(options.runs)]
        report = _report(cluster, quiet, attacked)
        for name, value in report.items():
            print(f"{name:28} {value}")
        write_json(options.json, report | {"machine": describe_machine(), "options": str(vars(options))})
        shutil.rmtree(folder, ignore_errors=True)


def _report(cluster: ClusterUnderAttack, quiet: list[Sample], attacked: list[Sample]) -> dict[str, Any]:
    before, after = (statistics.median(s.seconds for s in samples) for samples in (quiet, attacked))
    every = [*quiet, *attacked]
    return {
        "undisturbed seconds": round(before, 2),
        "attacked seconds": round(after, 2),
        "attacked / undisturbed": round(after / before, 3),
        "wrong files": sum(sample.wrong for sample in every),
        "failed fetches": sum(sample.failed for sample in every),
        "tokens found": cluster.leaks(),
        "memory in MiB": {name: program.memory() // MIB for name, program in cluster.servers.items()},
        "ended servers": [name for name, program in cluster.servers.items() if program.ended],
        "runs": {"undisturbed": [asdict(s) for s in quiet], "attacked": [asdict(s) for s in attacked]},
    }
