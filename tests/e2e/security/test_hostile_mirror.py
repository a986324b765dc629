"""A mirror that says too much, or leads elsewhere: the fetch goes on with the next one, and the memory stays small."""

import ipaddress
import random
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.hostile_mirror import HostileMirror
from tests.support.processes import PATIENCE, Nodes, Running, eventually

REPO = "org/model"
MAX_MEMORY = 300_000
"""kB"""
LIMITS = {"P2PMODEL_ORIGIN_CONNECT_TIMEOUT": "2", "P2PMODEL_ORIGIN_READ_TIMEOUT": "2"}
REASONS = {
    "gzip bomb": "its listing is larger than 16 MiB",
    "endless body": "its listing is larger than 16 MiB",
    "deep": "its response is not a hub's",
    "itself": "its listing repeats a page",
    "drip": "no complete response within",
    "huge length": "invalid HTTP response",
    "bad header": "invalid HTTP response",
}
REDIRECTS = {
    "http://169.254.169.254/latest/meta-data": "it leads to 169.254.169.254, a link-local address",
    "http://10.255.255.1/": "it leads to 10.255.255.1, a private address",
    "http://127.0.0.9:99999999/": "it redirects to an unusable address",
    "file:///etc/passwd": "it redirects to an unusable address",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(random.Random(1).randbytes(2_000_000))
    return folder


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def watched(running: Running) -> list[int]:
    """The highest memory use of a process in kB, as the last element of a list that grows while it runs."""
    found: list[int] = []

    def watch() -> None:
        with suppress(OSError, ValueError, IndexError):
            while running.process.poll() is None:
                status = Path(f"/proc/{running.process.pid}/status").read_text()
                found.append(int(status.partition("VmHWM:")[2].split()[0]))
                threading.Event().wait(0.02)

    threading.Thread(target=watch, daemon=True).start()
    return found


def test_every_harmful_answer_leaves_the_next_mirror_to_finish(nodes: Nodes, model: Path, stack: ExitStack) -> None:
    hostile = {harm: stack.enter_context(HostileMirror(harm)) for harm in (*REASONS, *REDIRECTS)}
    honest, _ = nodes.hub(model)
    endpoints = [mirror.url for mirror in hostile.values()] + [honest]
    running = nodes.start("victim", "fetch", REPO, "--json", *(f"--endpoint={url}" for url in endpoints), **LIMITS)
    memory = watched(running)
    done = running.wait(3 * PATIENCE)
    assert done.code == 0, done.err
    for path in model.iterdir():
        assert (Path(done.json["path"]) / path.name).read_bytes() == path.read_bytes()
    for harm, reason in (REASONS | REDIRECTS).items():
        name = hostile[harm].url.removeprefix("http://")
        lines = [line for line in done.err.splitlines() if f"mirror {name} has no manifest: " in line]
        assert any(reason in line for line in lines), (harm, lines, done.err)
    assert len(hostile["itself"].requests) < 10
    assert memory[-1] < MAX_MEMORY


def test_a_daemon_ends_while_a_listing_has_no_end(nodes: Nodes, stack: ExitStack) -> None:
    mirror = stack.enter_context(HostileMirror("pages"))
    options = ("--endpoint", mirror.url, "--hub-listen", "127.0.0.1:0", "--json")
    running = nodes.start("victim", "daemon", *options, P2PMODEL_DAEMON_SOCKET=str(nodes.root / "s"))
    memory = watched(running)
    url = str(running.ready()["hub"])

    def ask() -> None:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/api/models/{REPO}", timeout=PATIENCE).close()

    threading.Thread(target=ask, daemon=True).start()
    eventually(lambda: len(mirror.requests) >= 20, PATIENCE, lambda: "".join(running.err))
    done = running.stop()
    assert done.code in (0, 143), done.err
    asked = len(mirror.requests)
    threading.Event().wait(0.5)
    assert len(mirror.requests) == asked
    assert memory[-1] < MAX_MEMORY


def test_a_mirror_in_a_private_network_does_not_lead_to_loopback(nodes: Nodes, model: Path, stack: ExitStack) -> None:
    host = own_private_address()
    service = stack.enter_context(HostileMirror("deep", "127.0.0.1"))
    hostile = stack.enter_context(HostileMirror(f"{service.url}/admin", host))
    honest, _ = nodes.hub(model)
    done = nodes.run("victim", "fetch", REPO, "--json", "--endpoint", hostile.url, "--endpoint", honest)
    assert done.code == 0, done.err
    assert "it leads to 127.0.0.1, a loopback address (see the setting origin.allowed_networks)" in done.err
    assert service.requests == []
    allowed = {"P2PMODEL_ORIGIN_ALLOWED_NETWORKS": "127.0.0.1"}
    nodes.run("other", "fetch", REPO, "--json", "--endpoint", hostile.url, "--endpoint", honest, **allowed)
    assert service.requests


def own_private_address() -> str:
    """An address of this machine in a private network; without one the test is skipped."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing
        address = ipaddress.ip_address(probe.getsockname()[0])
        if address.is_private and not address.is_loopback:
            return str(address)
    pytest.skip("this machine has no address in a private network")
