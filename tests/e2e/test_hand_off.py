"""`fetch --exec` and `--print-serve`: with a daemon, without one, and while the snapshot is seeded."""

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests.support.endpoint_clients import DEAD, tracker
from tests.support.processes import PATIENCE, Nodes, eventually

REPO = "org/model"
SHOW = """
import json, os, sys
names = ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "P2PMODEL_PATH")
places = [f"/proc/self/fd/{n}" for n in range(3, 100)]
files = [os.readlink(place) for place in places if os.path.lexists(place)]
print(json.dumps([sys.argv[1:], {n: os.environ[n] for n in names}, os.getpid(), files]), flush=True)
"""
WAIT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(41))
print("serving", flush=True)
time.sleep(600)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text('{"architectures": ["A"], "model_type": "a", "dtype": "bfloat16"}')
    (source / "model.safetensors").write_bytes(bytes(1000))
    return source


def command(code: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-c", code, *arguments])


def test_the_command_takes_the_place_of_fetch(nodes: Nodes, model: Path) -> None:
    nodes.ok("peer", "import", model, REPO)
    running = nodes.start(
        "peer", "fetch", REPO, "-q", "--exec", command(SHOW, "{path}", "{repo}@{revision}", '{"image": 4}')
    )
    pid, done = running.process.pid, running.wait()
    assert done.code == 0, done.err
    arguments, environment, own_pid, files = json.loads(done.out)
    path = Path(arguments[0])
    assert (path / "model.safetensors").read_bytes() == bytes(1000)
    assert arguments[1:] == [f"{REPO}@{path.name}", '{"image": 4}']
    assert environment == {
        "HF_HUB_CACHE": str(nodes.cache("peer")),
        "HF_HUB_OFFLINE": "1",
        "P2PMODEL_PATH": str(path),
    }
    assert own_pid == pid, "signals reach the command itself"
    assert files == [], "no file or socket is inherited"
    assert nodes.run("peer", "fetch", REPO, "-q", "--exec", command("raise SystemExit(9)")).code == 9


def test_with_a_daemon_that_reports_the_engine(nodes: Nodes, model: Path) -> None:
    hub, _ = nodes.hub(model, repo=REPO)
    daemon = nodes.start("peer", "daemon", "--endpoint", hub, "--swarm-listen", "127.0.0.11:0", "--json")
    daemon.ready()
    running = nodes.start("peer", "fetch", REPO, "--exec", command(WAIT))
    eventually(lambda: running.out == ["serving\n"], PATIENCE, lambda: "".join(running.err))
    [transfer] = nodes.ok("peer", "status", "--json").json["transfers"]
    assert (transfer["complete"], transfer["engine"]) == (True, "loading")
    assert running.stop(signal.SIGTERM).code == 41
    assert daemon.stop().code == 0


def test_a_seeding_fetch_goes_on_until_its_command_ends(nodes: Nodes, model: Path) -> None:
    hub, _ = nodes.hub(model, repo=REPO)
    where = ("--coordinator", tracker(nodes), "--swarm-listen", "127.0.0.11:0", "--seed-time", "3600")
    running = nodes.start("peer", "fetch", REPO, "--endpoint", hub, *where, "--exec", command(WAIT))
    eventually(lambda: running.out == ["serving\n"], PATIENCE, lambda: "".join(running.err))
    there = ("--endpoint", DEAD, *where[:2], "--swarm-listen", "127.0.0.12:0")
    other = nodes.ok("other", "fetch", REPO, *there, "--json").json
    assert other["from_peers"] == other["size"]
    assert running.process.poll() is None
    assert running.stop(signal.SIGTERM).code == 41
