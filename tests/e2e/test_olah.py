"""olah, a mirror that others run, on either side of the daemon's hub endpoint."""

import random
import sys
from pathlib import Path

import pytest

from tests.support.hub_clients import HubClient
from tests.support.olah_server import Olah, olah, olah_python
from tests.support.processes import Nodes, Running, served

__all__ = ["olah", "olah_python"]

REPO = "org/model"
CONTENTS = {
    "config.json": b"{}",
    "empty.txt": b"",
    "tokenizer.json": b'{"version": "1.0"}' * 5000,
    "sub folder/d\u00e9j\u00e0 vu.txt": b"text",
    "model.safetensors": random.Random(1).randbytes((20 << 20) + 4321),
}
"""The large one is no multiple of olah's blocks of 8 MiB."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    for path, data in CONTENTS.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
    return source


def daemon(nodes: Nodes, endpoint: str) -> Running:
    where = ("--swarm-listen", "127.0.0.11:0", "--hub-listen", "127.0.0.1:0")
    return nodes.start("node", "daemon", *where, "--endpoint", endpoint, "--json")


def download(nodes: Nodes, name: str, endpoint: str) -> dict[str, bytes]:
    """What `hf download` brings into a cache of its own."""
    home = nodes.root / name
    home.mkdir()
    client = HubClient(Path(sys.executable), home, endpoint)
    snapshot = Path(client.hf("download", REPO, "--format", "quiet").strip().splitlines()[-1])
    client.hf("cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
    return {p.relative_to(snapshot).as_posix(): p.read_bytes() for p in snapshot.rglob("*") if p.is_file()}


@pytest.mark.parametrize("behind", ["hub", "mirror"])
def test_the_daemon_pulls_from_olah(nodes: Nodes, model: Path, olah: Olah, behind: str) -> None:
    if behind == "mirror":
        nodes.ok("mirror", "import", model, REPO)
        upstream, log = nodes.mirror()
    else:
        upstream, log = nodes.hub(model, repo=REPO)
    running = daemon(nodes, olah.start(upstream))
    assert download(nodes, "client", str(running.ready()["hub"])) == CONTENTS
    assert nodes.ok("node", "verify", REPO).code == 0
    sent = sum(r.get("sent", r.get("bytes", 0)) for r in served(log) if r["path"].endswith("model.safetensors"))
    assert sent == len(CONTENTS["model.safetensors"]), "olah fetched each block once"


def test_olah_mirrors_the_daemon(nodes: Nodes, model: Path, olah: Olah) -> None:
    """The proxy requests blocks of a growing file."""
    nodes.ok("mirror", "import", model, REPO)
    mirror, _ = nodes.mirror("--max-bytes-per-second", "5000000")
    running = daemon(nodes, mirror)
    endpoint = olah.start(str(running.ready()["hub"]))
    assert download(nodes, "first", endpoint) == CONTENTS
    assert download(nodes, "second", endpoint) == CONTENTS, "from olah's own cache"
