"""A daemon killed repeatedly, while it downloads and clients read from it: no client ever receives a wrong byte."""

import json
import logging
import random
import select
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.cache_watch import CacheWatch, etags_of
from tests.support.dice import dice
from tests.support.hub_clients import HubClient
from tests.support.processes import PATIENCE, Nodes, Running, eventually
from tests.support.range_readers import RangeReaders

__all__ = ["dice"]

pytestmark = pytest.mark.xdist_group("swarm")

KILLS = 20
WHILE_STARTING = 3
SNAPSHOTS = 5
RATE = 900_000
"""Bytes a second of each seeder: with it a snapshot takes longer than the daemon lives before the last kill."""
SHARDS = {"model-0.safetensors": 4_000_001, "model-1.safetensors": 9_000_000}
SHARED = ("org/m0", "org/m1")
"""Repositories of which a client of the daemon's own cache asks for the files, too."""
ALL_OF_IT = ("--fail-on-missing-files", "--fail-on-extra-files")
LOG = logging.getLogger(__name__)  # shown when a test fails

DOWNLOAD = """
import json, sys, time
from huggingface_hub import snapshot_download
failures = 0
for repo in sys.argv[1:]:
    while True:
        try:
            snapshot_download(repo)
            break
        except Exception:
            failures += 1
            time.sleep(0.2)
print(json.dumps(failures))
"""


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Five snapshots by repository."""
    found = {}
    for number in range(SNAPSHOTS):
        folder = tmp_path / f"m{number}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"number": number}))
        for name, size in SHARDS.items():
            (folder / name).write_bytes(random.Random(f"{number} {name}").randbytes(size))
        found[f"org/m{number}"] = folder
    return found


@dataclass
class Victim:
    """A daemon that is started again wherever it was before, to be killed."""

    nodes: Nodes
    coordinator: str
    running: Running = field(init=False)
    hub: str = "127.0.0.41:0"
    control: str = "127.0.0.42:0"
    """Addresses from which no client connects: a port of it may not be taken while the daemon is away."""

    def start(self) -> None:
        where = ("--coordinator", self.coordinator, "--endpoint", "http://127.0.0.1:9", "--json")
        listen = ("--swarm-listen", "127.0.0.11:0", "--hub-listen", self.hub, "--control-listen", self.control)
        self.running = self.nodes.start("node", "daemon", *where, *listen, P2PMODEL_DAEMON_MAX_ACTIVE=str(SNAPSHOTS))

    def ready(self) -> None:
        told = self.running.ready()
        self.hub, self.control = (str(told[key]).removeprefix("http://") for key in ("hub", "url"))

    def ask(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"http://{self.control}/api/v1/{path}", data)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def transfers(self) -> list[dict[str, Any]]:
        found = self.ask("transfers")
        assert isinstance(found, list)
        return found

    def serves_all(self) -> bool:
        return all(transfer["state"] == "seeding" for transfer in self.transfers())

    def downloads_all(self) -> bool:
        return all(transfer["progress"]["phase"] == "downloading" for transfer in self.transfers())

    def kill(self, after: float) -> None:
        time.sleep(after)
        assert self.running.process.poll() is None, "".join(self.running.err[-5:])
        self.running.stop(signal.SIGKILL)
        assert "Traceback" not in "".join(self.running.err)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_twenty_times_amid_five_transfers(nodes: Nodes, models: dict[str, Path], dice: random.Random) -> None:
    victim = Victim(nodes, seeded(nodes, models))
    victim.start()
    victim.ready()
    for repo in models:
        victim.ask("transfers", target=repo)
    endpoint, early = f"http://{victim.hub}", set(dice.sample(range(KILLS), WHILE_STARTING))
    within = coming = 0
    with watched(nodes, models):
        clients = hub_clients(nodes, endpoint, tuple(models))
        with RangeReaders(endpoint, contents(models), dice) as readers:
            for number in range(KILLS):
                if number not in early:
                    victim.ready()
                    time.sleep(dice.uniform(0.1, 1.1))
                    coming += any(t["progress"]["phase"] == "downloading" for t in victim.transfers())
                victim.kill(dice.uniform(0.0, 1.0 if number in early else 0.2))
                within += any(missing(nodes, repo, folder) for repo, folder in models.items())
                victim.start()
            victim.ready()
            LOG.warning("%d kills within a transfer, %d of them while bytes came", within, coming)
            eventually(victim.serves_all, PATIENCE, lambda: str(victim.transfers()))
        failures = [client.result() for client in clients]
    LOG.warning("%d bytes read in ranges, %s; clients began anew %s times", readers.checked, readers.statuses, failures)
    assert within >= 15
    assert coming >= 10
    assert readers.checked > 1_000_000
    assert readers.statuses.keys() <= {200, 206, 429, 503}
    for client in clients:
        client.compare(models)
    for repo in models:
        HubClient(Path(sys.executable), nodes.root / "node", endpoint).hf("cache", "verify", repo, *ALL_OF_IT)
    assert victim.running.stop().code == 0


@pytest.mark.parametrize(("by", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_in_time_amid_five_transfers_and_open_streams(
    nodes: Nodes, models: dict[str, Path], by: signal.Signals, code: int
) -> None:
    victim = Victim(nodes, seeded(nodes, models))
    victim.start()
    victim.ready()
    for repo in models:
        victim.ask("transfers", target=repo)
    events, shard = "/api/v1/events", "/org/m0/resolve/main/model-1.safetensors"
    with ExitStack() as stack:
        asked = 5 * [(victim.control, events), (victim.hub, shard)]
        streams = [Stream(stack, address, path) for address, path in asked]
        stack.enter_context(asking(victim.control, "/api/v1/transfers"))  # answered and left open
        stack.enter_context(asking(victim.control, "/api/v1/tra", end=""))  # only half of a request
        eventually(lambda: all(each.answered() for each in streams), PATIENCE, lambda: str(victim.transfers()))
        eventually(victim.downloads_all, PATIENCE, lambda: str(victim.transfers()))
        done = victim.running.stop(by)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert not Path(victim.running.ready()["socket"]).exists()
    victim.start()
    victim.ready()
    assert len(victim.transfers()) == SNAPSHOTS
    assert victim.running.stop().code == 0


def asking(address: str, path: str, end: str = "\r\n\r\n") -> socket.socket:
    """A client that has requested `path` and does not read the response."""
    host, _, port = address.rpartition(":")
    client = socket.create_connection((host, int(port)), timeout=PATIENCE)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}{end}".encode())
    return client


class Stream:
    """A client with an answer that does not end while the daemon runs. It asks again where the daemon is busy."""

    def __init__(self, stack: ExitStack, address: str, path: str) -> None:
        self._stack, self._address, self._path = stack, address, path
        self._client = self._ask()

    def answered(self) -> bool:
        """Whether it has begun."""
        if not select.select([self._client], [], [], 0)[0]:
            return False
        begin = self._client.recv(400, socket.MSG_PEEK)
        if begin.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503")):  # no byte has come yet, or no coordinator has answered
            self._client.close()
            self._client = self._ask()
            return False
        assert begin.startswith(b"HTTP/1.1 200"), begin
        return True

    def _ask(self) -> socket.socket:
        return self._stack.enter_context(asking(self._address, self._path))


def seeded(nodes: Nodes, models: Mapping[str, Path]) -> str:
    """The coordinator of a seeder for each model."""
    coordinator = str(nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json").ready()["url"])
    where = ("--coordinator", coordinator, "--upload-limit", str(RATE))
    seeders = [
        nodes.seed(folder, "--as", repo, *where, node=f"seeder{number}", address=f"127.0.0.{20 + number}")
        for number, (repo, folder) in enumerate(models.items())
    ]
    for seeder in seeders:
        seeder.ready()
    return coordinator


def folder_of(nodes: Nodes, repo: str) -> Path:
    return nodes.cache("node") / f"models--{repo.replace('/', '--')}"


def missing(nodes: Nodes, repo: str, folder: Path) -> bool:
    """Whether the daemon's cache lacks some blob of the snapshot."""
    return not all((folder_of(nodes, repo) / "blobs" / etag).exists() for etag in etags_of(folder).values())


def contents(models: Mapping[str, Path]) -> dict[str, bytes]:
    """The expected bytes of each path of the endpoint."""
    return {
        f"/{repo}/resolve/main/{path.name}": path.read_bytes()
        for repo, folder in models.items()
        for path in folder.iterdir()
    }


@contextmanager
def watched(nodes: Nodes, models: Mapping[str, Path]) -> Iterator[None]:
    """The daemon's cache never contains a partial file, and at the end all files are present."""
    with ExitStack() as stack:
        watches = {
            repo: CacheWatch(folder_of(nodes, repo), etags_of(folder), clients=repo in SHARED, every=0.05)
            for repo, folder in models.items()
        }
        for watch in watches.values():
            stack.enter_context(watch)
        yield
    for repo, watch in watches.items():
        assert watch.blobs == set(etags_of(models[repo]).values())


class Downloading:
    """A real client that downloads `repos` one after the other, and restarts after each failure."""

    def __init__(self, home: Path, endpoint: str, repos: tuple[str, ...]) -> None:
        home.mkdir(exist_ok=True)
        self._client = HubClient(Path(sys.executable), home, endpoint, patience=250.0)
        self._repos = repos
        self._found: list[Any] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._found.append(self._client.script(DOWNLOAD, *self._repos))

    def result(self) -> int:
        """The number of restarts. Waits for the end of the client."""
        self._thread.join(PATIENCE)
        assert self._found, f"a client in {self._client.home} has not got {self._repos}"
        return int(self._found[0])

    def compare(self, models: Mapping[str, Path]) -> None:
        """Check that the downloaded contents are the published ones."""
        for repo in self._repos:
            [snapshot] = (self._client.hub / f"models--{repo.replace('/', '--')}" / "snapshots").iterdir()
            for path in models[repo].iterdir():
                assert (snapshot / path.name).read_bytes() == path.read_bytes(), f"{self._client.home}: {repo}"


def hub_clients(nodes: Nodes, endpoint: str, repos: tuple[str, ...]) -> list[Downloading]:
    """One client that has the daemon's cache, and two with caches of their own."""
    return [
        Downloading(nodes.root / "node", endpoint, SHARED),
        Downloading(nodes.root / "elsewhere", endpoint, repos),
        Downloading(nodes.root / "another", endpoint, repos[::-1]),
    ]
