"""Three tiers, each an instance of the same program: hub, regional mirror, edge; and many clients at the edge."""

import asyncio
import hashlib
import os
import signal
from pathlib import Path

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from p2pmodel.core.content.names import RepoId
from p2pmodel.store.cache import HubCache
from tests.support.processes import PATIENCE, Nodes, eventually, served

CLIENTS = 200
SIZE = 20_000_000
FILE = "org/model/resolve/main/model.safetensors"
MEMORY = 400_000
"""Bound on what a mirror may take, in kB: less than a tenth of what 200 copies in memory would."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE))
    (folder / "config.json").write_text("{}")
    return folder


def edge_of(nodes: Nodes, *upstreams: str, node: str, address: str, options: tuple[str, ...] = ()) -> tuple[str, int]:
    named = [arg for url in upstreams for arg in ("--upstream", url)]
    running = nodes.start(node, "mirror", "serve", "--listen", f"{address}:0", "--json", *named, *options)
    return str(running.ready()["endpoint"]), running.process.pid


async def digest_of(http: ClientSession, url: str) -> str:
    digest = hashlib.sha256()
    async with http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        async for piece in answer.content.iter_any():
            digest.update(piece)
    return digest.hexdigest()


async def many(endpoint: str, count: int) -> list[str]:
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(100)) as http:
        return await asyncio.gather(*(digest_of(http, f"{endpoint}/{FILE}") for _ in range(count)))


def bytes_sent(log: Path) -> int:
    return sum(entry["sent"] for entry in served(log) if "/resolve/" in entry["path"])


def peak_memory(pid: int) -> int:
    """Peak resident memory of a process, in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def test_two_hundred_clients_of_an_edge_are_one_copy_from_the_hub(nodes: Nodes, model: Path) -> None:
    hub, log = nodes.hub(model)
    regional, regional_pid = edge_of(nodes, hub, node="regional", address="127.0.0.2")
    edge, edge_pid = edge_of(nodes, regional, node="edge", address="127.0.0.3")
    expected = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert set(asyncio.run(many(edge, CLIENTS))) == {expected}
    eventually(lambda: bytes_sent(log) >= SIZE, PATIENCE)
    assert bytes_sent(log) <= 1.02 * SIZE
    assert max(peak_memory(regional_pid), peak_memory(edge_pid)) < MEMORY


def test_a_fetch_through_two_tiers_and_again_without_the_hub(nodes: Nodes, model: Path) -> None:
    hub, log = nodes.hub(model)
    regional, _ = edge_of(nodes, hub, node="regional", address="127.0.0.2")
    edge, _ = edge_of(nodes, regional, node="edge", address="127.0.0.3", options=("--metadata-ttl", "0"))
    first = nodes.ok("one", "fetch", "org/model", "--endpoint", edge, "--json", "-q")
    path = Path(first.json["path"])
    assert {p.name: p.read_bytes() for p in path.iterdir()} == {p.name: p.read_bytes() for p in model.iterdir()}
    asked = len(served(log))
    repo = HubCache(nodes.cache("edge")).repo(RepoId("org/model"))
    eventually(lambda: len(list(repo.snapshot(path.name).glob("*"))) == 2, PATIENCE)
    nodes.ok("two", "fetch", "org/model", "--endpoint", edge, "--json", "-q")
    assert len(served(log)) == asked, "the regional mirror caches main for 72 hours"
    verified = nodes.ok("edge", "verify", "org/model", "--json")
    assert verified.code == 0


def test_an_edge_that_was_killed_midway_resumes(nodes: Nodes, model: Path) -> None:
    hub, log = nodes.hub(model, "slow:1500000@*.safetensors")
    edge, pid = edge_of(nodes, hub, node="edge", address="127.0.0.3")
    part = nodes.cache("edge") / "models--org--model" / ".p2pmodel" / "staging"

    async def leave_early() -> None:
        async with ClientSession() as http, http.get(f"{edge}/{FILE}") as answer:
            await answer.content.readexactly(3_000_000)

    asyncio.run(leave_early())
    os.kill(pid, signal.SIGKILL)
    assert list(part.glob("*.part"))
    edge, _ = edge_of(nodes, hub, node="edge", address="127.0.0.3")
    expected = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    assert asyncio.run(many(edge, 1)) == [expected]
    eventually(lambda: bytes_sent(log) > SIZE / 2, PATIENCE)
    assert bytes_sent(log) < 1.5 * SIZE


def test_invalid_upstreams(nodes: Nodes) -> None:
    itself = nodes.run("edge", "mirror", "serve", "--listen", "127.0.0.3:8123", "--upstream", "http://127.0.0.3:8123")
    assert itself.code == 2
    assert "this mirror itself" in itself.err
    offline = nodes.run("edge", "mirror", "serve", "--upstream", "http://127.0.0.9", HF_HUB_OFFLINE="1")
    assert offline.code == 2
    assert "HF_HUB_OFFLINE" in offline.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-cache-bytes", "1GB"), "add --upstream"),
        (("--deny", "org/*"), "add --upstream"),
        (("--upstream", "http://127.0.0.9", "--max-cache-bytes", "much"), "is not a size"),
        (("--upstream", "http://127.0.0.9", "--metadata-ttl", "soon"), "is not a time"),
        (("--upstream", "nobody"), "neither a URL nor the name"),
        (("--accel", "blobs"), "begins and ends with a slash"),
        (("--accel", "/b/", "--max-bytes-per-second", "5"), "limit_rate"),
    ],
)
def test_options_that_make_no_sense(nodes: Nodes, options: tuple[str, ...], words: str) -> None:
    done = nodes.run("edge", "mirror", "serve", "--listen", "127.0.0.3:0", *options)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
