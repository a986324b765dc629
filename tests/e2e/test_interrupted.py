"""Ctrl-C and SIGTERM at any moment: one line, exit 130 (0 for a stopped server), soon, and no repair needed."""

import random
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Finished, Nodes, Running, eventually

REPO = "org/model"
UNREACHABLE = "http://127.0.0.1:9"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TORRENT = ("torrent", "create", REPO, "-o", "x.torrent")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for name, size in {"a.safetensors": 3_000_000, "b.safetensors": 2_000_000, "config.json": 100}.items():
        (folder / name).write_bytes(random.Random(name).randbytes(size))
    return folder


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough to be caught hashing it."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / "weights.safetensors").open("wb") as file:
        block = random.Random(1).randbytes(1 << 20)
        for _ in range(300):
            file.write(block)
    return folder


def begun(running: Running) -> None:
    """Wait until the command handles signals, which is after the start of Python."""
    status = Path(f"/proc/{running.process.pid}/status")

    def heeds() -> bool:
        try:
            caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
        except (OSError, StopIteration):
            return True
        return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)

    eventually(lambda: heeds() or running.process.poll() is not None, PATIENCE)


def said(done: Finished) -> list[str]:
    """stderr without the progress."""
    return [line for line in done.err.splitlines() if not line.startswith("{")]


def interrupted(done: Finished, words: str = "") -> None:
    assert done.code == 130, done
    assert done.out == ""
    assert len(said(done)) == 1, done.err
    assert said(done)[0].startswith("p2pmodel: ")
    assert words in said(done)[0]


def phase(running: Running, *names: str) -> None:
    eventually(lambda: running.progress().get("phase") in names, PATIENCE, lambda: "".join(running.err))


def come(running: Running, size: int) -> None:
    eventually(lambda: running.progress().get("done", 0) >= size, PATIENCE, lambda: "".join(running.err))


@pytest.mark.parametrize(
    "args",
    [("import", "{large}", "org/new"), ("verify", REPO), TORRENT, ("seed", "{large}", "--as", "org/new", "--once")],
    ids=lambda args: args[0],
)
def test_hashing_stops_at_any_moment(nodes: Nodes, large: Path, tmp_path: Path, args: tuple[str, ...]):
    nodes.ok("node", "import", large, REPO)
    command = [str(tmp_path / arg) if arg == "x.torrent" else arg.format(large=large) for arg in args]
    for by in SIGNALS:
        for delay in (0.0, 0.02, random.uniform(0.05, 0.5)):
            running = nodes.start("node", *command, "-q")
            begun(running)
            time.sleep(delay)
            done = running.stop(by)
            if not done.out:
                interrupted(done)
            assert done.code in (0, 130)
    assert nodes.run("node", *command, "-q").code == 0


def test_a_fetch_from_mirrors_resumes(nodes: Nodes, source: Path):
    endpoint, _ = nodes.hub(source, "slow:800000")
    running = nodes.fetch("node", REPO, "--endpoint", endpoint)
    had = 0
    for number, by in enumerate(SIGNALS):
        come(running, had + (number + 1) * 200_000)
        had = running.progress()["done"]
        interrupted(running.stop(by), "interrupted; what was verified is kept: the same command resumes")
        running = nodes.fetch("node", REPO, "--endpoint", endpoint)
        come(running, had)
        assert running.progress()["from_cache"] >= had - 1_000_000
    assert running.wait().code == 0
    nodes.ok("node", "verify", REPO)


def test_a_fetch_from_peers_resumes_and_may_be_stopped_while_it_serves(nodes: Nodes, source: Path, tmp_path: Path):
    seeder = nodes.seed(source, "--as", REPO, "--upload-limit", "1500000")
    coordinator = ("--coordinator", seeder.ready()["coordinator"], "--endpoint", UNREACHABLE)
    running = nodes.fetch("node", REPO, *coordinator)
    come(running, 700_000)
    interrupted(running.stop(signal.SIGINT), "what was verified is kept: the same command resumes")
    running = nodes.fetch("node", REPO, *coordinator, "--seed-time", "60")
    phase(running, "seeding")
    assert running.ready()["from_cache"] > 0
    # The download is complete: the interrupt only stops serving.
    assert running.stop(signal.SIGINT).code == 0
    nodes.ok("node", "verify", REPO)
    assert seeder.stop(signal.SIGTERM).code == 0


@pytest.fixture
def silence() -> Iterator[str]:
    """The URL of a server that accepts every connection and never responds."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("by", SIGNALS)
def test_waiting_for_an_answer_stops(nodes: Nodes, silence: str, by: signal.Signals):
    magnet = f"magnet:?xt=urn:btmh:1220{'ab' * 32}&tr={silence}/announce"
    commands = (
        ("fetch", REPO, "--endpoint", silence),
        ("fetch", REPO, "--endpoint", UNREACHABLE, "--coordinator", silence),
        ("fetch", f"{silence}/x.torrent"),
        ("fetch", magnet),
        ("seed", "--once", REPO, "--endpoint", silence),
    )
    patient = {"P2PMODEL_SWARM_COORDINATOR_TIMEOUT": "60"}
    waiting = [nodes.start("node", *args, "--progress", "json", **patient) for args in commands]
    for running in waiting:
        phase(running, "finding")
        time.sleep(random.uniform(0, 0.3))
        interrupted(running.stop(by))


@pytest.mark.parametrize("by", SIGNALS)
def test_a_seeder_stops_while_it_mirrors_hashes_or_seeds(nodes: Nodes, source: Path, large: Path, by: signal.Signals):
    def ends(start: Callable[[], Running], reached: Callable[[Running], None]) -> None:
        running = start()
        reached(running)
        done = running.stop(by)
        errors = [line for line in said(done) if line.startswith("p2pmodel: ")]
        if by == signal.SIGTERM:
            assert (done.code, errors) == (0, []), done
        else:
            stopped = "stopped; the snapshot stays in the cache, and the same command resumes seeding at once"
            assert (done.code, errors) == (130, [f"p2pmodel: {stopped}"]), done

    endpoint, _ = nodes.hub(source, "slow:2000000")
    where = ("--listen", "127.0.0.1:0", "--progress", "json")
    mirrored = ("seed", REPO, "--endpoint", endpoint, *where)
    ends(lambda: nodes.start("node", *mirrored), lambda running: come(running, 300_000))
    ends(lambda: nodes.start("node", "seed", large, "--as", "org/large", *where), lambda r: phase(r, "hashing"))
    ends(lambda: nodes.start("node", *mirrored), lambda running: phase(running, "seeding"))
    nodes.ok("node", "verify", REPO)


@pytest.mark.parametrize("verb", [("mirror", "serve"), ("coordinator",)], ids=lambda verb: verb[0])
def test_servers_end_cleanly_on_a_signal(nodes: Nodes, verb: tuple[str, str]):
    for by, code in ((signal.SIGTERM, 0), (signal.SIGINT, 130)):
        running = nodes.start("node", *verb, "--listen", "127.0.0.1:0", "--json", "-q")
        running.ready()
        done = running.stop(by)
        assert done.code == code
        assert len(said(done)) == (1 if code else 0)
