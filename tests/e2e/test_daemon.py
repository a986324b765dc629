"""The daemon of a node as users run it: real processes, one engine, clients that come and go."""

import json
import os
import random
import signal
import socket
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import PATIENCE, Nodes, Running, eventually, served

pytestmark = pytest.mark.main

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
SIZE = 6_000_000
FILES = 3
PIECE = 128 << 10
SLOW = "50000"
"""Bytes a second: a transfer that outlasts the start of a few commands on a slow machine."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    for number in range(2):
        (source / f"{number}.safetensors").write_bytes(random.Random(number).randbytes(SIZE // 2))
    return source


@pytest.fixture
def seeder(nodes: Nodes, model: Path) -> str:
    """The coordinator of a seeder without bounds."""
    return str(nodes.seed(model, "--as", REPO).ready()["coordinator"])


def daemon(nodes: Nodes, coordinator: str, *options: str | Path, node: str = "node", **env: str) -> Running:
    where = ("--coordinator", coordinator, "--endpoint", DEAD, "--swarm-listen", "127.0.0.11:0", "--json")
    running = nodes.start(node, "daemon", *where, *options, **env)
    running.ready()
    return running


def transfers(nodes: Nodes, node: str = "node") -> list[dict[str, Any]]:
    found = nodes.ok(node, "status", "--json").json["transfers"]
    assert isinstance(found, list)
    return found


def one(nodes: Nodes) -> dict[str, Any]:
    [transfer] = transfers(nodes)
    return transfer


def until(nodes: Nodes, state: str) -> dict[str, Any]:
    eventually(lambda: one(nodes)["state"] == state, PATIENCE, lambda: str(transfers(nodes)))
    return one(nodes)


def published(nodes: Nodes, node: str = "node") -> dict[str, bytes]:
    snapshots = nodes.cache(node) / "models--org--model" / "snapshots"
    return {p.name: p.read_bytes() for p in snapshots.rglob("*") if p.is_file()}


def contents(model: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in model.iterdir()}


def test_two_fetches_at_once_are_one_transfer(nodes: Nodes, model: Path, seeder: str) -> None:
    running = daemon(nodes, seeder)
    both = [nodes.start("node", "fetch", REPO, "--json", "--progress", "files") for _ in range(2)]
    done = [fetch.wait() for fetch in both]
    assert [(d.code, d.json["path"]) for d in done] == [(0, done[0].json["path"])] * 2, done
    assert {"config.json  2 bytes", "0.safetensors  3.0 MB", "1.safetensors  3.0 MB"} <= set(done[0].err.splitlines())
    assert published(nodes) == contents(model)
    transfer = until(nodes, "seeding")
    assert transfer["complete"]
    assert transfer["progress"]["from_peers"] == transfer["size"] == sum(map(len, contents(model).values()))
    again = nodes.ok("node", "fetch", REPO, "--progress", "files")
    assert again.out == f"{done[0].json['path']}\n"
    assert "config.json  2 bytes" in again.err.splitlines()
    assert "were in the cache already" in again.err
    stopped_well(running)


def stopped_well(running: Running) -> None:
    """SIGTERM ends the daemon in time and leaves no socket or process."""
    path = Path(running.ready()["socket"])
    done = running.stop()
    assert done.code == 0, done.err
    assert not path.exists()
    assert "Traceback" not in done.err


def test_a_paused_transfer_stops_and_completes_after_a_resume(nodes: Nodes, model: Path, seeder: str) -> None:
    daemon(nodes, seeder, "--download-limit", SLOW)
    fetch = nodes.start("node", "fetch", REPO, "--json", "--progress", "json")
    eventually(lambda: fetch.progress().get("from_peers", 0) > 0, PATIENCE, lambda: str(fetch.progress()))
    assert nodes.ok("node", "pause", REPO).out == ""
    eventually(lambda: "paused" in fetch.progress()["waiting_for"], PATIENCE, lambda: str(fetch.progress()))
    before = one(nodes)["progress"]["done"]
    time.sleep(1.0)
    paused = one(nodes)
    assert (paused["state"], paused["progress"]["done"]) == ("paused", before)
    nodes.ok("node", "limits", "--download", "0")
    nodes.ok("node", "resume", f"{REPO}@main")
    assert fetch.wait().code == 0
    assert published(nodes) == contents(model)


def recorded(nodes: Nodes) -> int:
    """Bytes in whole pieces that are recorded as being on the node's disk, without the short ones that end a file."""
    records = (json.loads(path.read_text()) for path in nodes.cache("node").rglob("*.ranges"))
    return max(0, sum(end - start for record in records for start, end in record["done"]) - FILES * PIECE)


def test_a_daemon_killed_while_downloading_resumes_after_a_restart(nodes: Nodes, model: Path) -> None:
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "600000").ready()["coordinator"]
    running = daemon(nodes, str(seeder))
    fetch = nodes.start("node", "fetch", REPO, "--json", "--progress", "json")
    eventually(lambda: recorded(nodes) > 0, PATIENCE, lambda: str(fetch.progress()))
    running.stop(signal.SIGKILL)
    done = fetch.wait()
    assert done.code == 6, done.err
    assert "the daemon has stopped" in done.err
    assert nodes.run("node", "status").code == 6
    kept = recorded(nodes)
    daemon(nodes, str(seeder))
    transfer = until(nodes, "seeding")
    assert transfer["progress"]["from_cache"] >= kept > 0
    assert published(nodes) == contents(model)
    hub = nodes.cache("node") / "models--org--model" / "refs" / "main"
    assert hub.read_text() == transfer["commit"]


def test_interrupted_the_client_leaves_the_work_to_the_daemon(nodes: Nodes, model: Path) -> None:
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "2000000").ready()["coordinator"]
    daemon(nodes, str(seeder))
    fetch = nodes.start("node", "fetch", REPO, "--progress", "json")
    eventually(lambda: fetch.progress().get("from_peers", 0) > 0, PATIENCE, lambda: str(fetch.progress()))
    done = fetch.stop(signal.SIGINT)
    assert done.code == 130
    assert "the daemon continues the transfer" in done.err
    until(nodes, "seeding")
    assert published(nodes) == contents(model)


def test_it_serves_its_snapshots_to_others(nodes: Nodes, model: Path) -> None:
    tracker = str(nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json").ready()["url"])
    seeder = nodes.seed(model, "--as", REPO, "--coordinator", tracker)
    seeder.ready()
    running = daemon(nodes, tracker)
    fetched(nodes)
    seeder.stop()
    other = nodes.fetch("other", REPO, "--coordinator", str(tracker), "--endpoint", DEAD, address="127.0.0.12").wait()
    assert other.code == 0, other.err
    assert other.json["from_peers"] == other.json["size"]
    eventually(lambda: one(nodes)["progress"]["uploaded"] >= SIZE, PATIENCE, lambda: str(one(nodes)))
    stopped_well(running)


def fetched(nodes: Nodes) -> None:
    """Fetch as soon as the coordinator has the torrent."""
    eventually(lambda: nodes.run("node", "fetch", REPO, "-q").code == 0, PATIENCE, lambda: "never fetched")


def test_sigterm_while_it_downloads_ends_it_in_time(nodes: Nodes, model: Path) -> None:
    seeder = nodes.seed(model, "--as", REPO, "--upload-limit", "500000").ready()["coordinator"]
    running = daemon(nodes, str(seeder))
    fetch = nodes.start("node", "fetch", REPO, "--progress", "json")
    eventually(lambda: fetch.progress().get("from_peers", 0) > 0, PATIENCE, lambda: str(fetch.progress()))
    stopped_well(running)
    assert fetch.wait().code == 6


def test_it_notifies_systemd_when_it_is_ready_and_when_it_stops(nodes: Nodes, seeder: str, tmp_path: Path) -> None:
    address = f"@p2pmodel-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("\0" + address[1:])
        line.settimeout(PATIENCE)
        running = daemon(nodes, seeder, NOTIFY_SOCKET=address)
        assert line.recv(100) == b"READY=1"
        running.stop()
        assert line.recv(100) == b"STOPPING=1"


def test_a_second_daemon_reports_the_running_one(nodes: Nodes, seeder: str) -> None:
    running = daemon(nodes, seeder)
    done = nodes.run("node", "daemon", "--json")
    assert done.code == 7
    assert f"a daemon is running already at {running.ready()['socket']}" in done.err
    elsewhere = nodes.run("node", "daemon", "--json", "--socket", nodes.root / "other.sock")
    assert elsewhere.code == 7
    assert "another daemon keeps its transfers" in elsewhere.err


def test_fetches_with_other_settings_run_without_the_daemon(nodes: Nodes, model: Path, seeder: str) -> None:
    daemon(nodes, seeder)
    embedded = nodes.fetch("node", REPO, "--coordinator", seeder, "--endpoint", DEAD, "--no-daemon").wait()
    assert embedded.code == 0, embedded.err
    assert transfers(nodes) == []
    other = nodes.run("node", "fetch", REPO, "--coordinator", seeder, "--endpoint", DEAD, "--json")
    assert other.code == 0
    assert "the running daemon does not take --endpoint, --coordinator" in other.err
    hub = nodes.root / "elsewhere"
    third = nodes.run("node", "fetch", REPO, "--cache-dir", hub, HF_HUB_OFFLINE="1")
    assert "the daemon uses another cache" in third.err


def test_ls_and_rm_use_the_cache_with_and_without_a_daemon(nodes: Nodes, model: Path, seeder: str) -> None:
    nodes.ok("node", "import", model, "org/own")
    assert [s["repo"] for s in nodes.ok("node", "ls", "--json").json["snapshots"]] == ["org/own"]
    daemon(nodes, seeder)
    nodes.ok("node", "fetch", REPO, "-q")
    listed = nodes.ok("node", "ls").out
    assert [line.split()[0] for line in listed.splitlines()] == ["REPO", REPO, "org/own"]
    removed = nodes.ok("node", "rm", REPO, "--yes", "--json").json
    assert removed["freed"] >= SIZE
    assert [transfer["repo"] for transfer in transfers(nodes)] == ["org/own"], "served because it is in the cache"
    assert published(nodes) == {}
    nodes.ok("node", "rm", "org/own", "--yes")
    assert nodes.ok("node", "ls", "--json").json == {"snapshots": []}
    assert nodes.run("node", "rm", REPO).code == 3


def test_a_failure_comes_to_the_client_as_it_was(nodes: Nodes, seeder: str) -> None:
    daemon(nodes, seeder, P2PMODEL_ORIGIN_PATIENCE="1", P2PMODEL_ORIGIN_CONNECT_TIMEOUT="1")
    done = nodes.run("node", "fetch", "org/none")
    assert done.code == 6, done
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith("p2pmodel: ")
    assert nodes.run("node", "fetch", "nonsense name").code == 2
    assert nodes.run("node", "pause", "org/none").code == 3


def test_without_a_daemon_the_verbs_report_it_in_one_line(nodes: Nodes) -> None:
    for verb in (("status",), ("pause", REPO), ("resume", REPO)):
        done = nodes.run("node", *verb)
        assert done.code == 6
        assert done.err == (
            f"p2pmodel: no daemon is running (looked for {nodes.root}/node/.local/state/p2pmodel/p2pmodel.sock); "
            "start one with 'p2pmodel daemon'\n"
        )


def test_over_tcp_it_requires_its_token(nodes: Nodes, seeder: str) -> None:
    token = nodes.root / "token"
    token.write_text("open-sesame-sesame\n")
    token.chmod(0o600)
    tcp = ("--control-listen", "127.0.0.1:0", "--token-file", token, "--read-only")
    url = daemon(nodes, seeder, *tcp).ready()["url"]
    assert asked(url, "GET", "transfers") == 401
    assert asked(url, "GET", "transfers", Authorization="Bearer open-sesame-sesame") == 200
    assert asked(url, "POST", "transfers", Authorization="Bearer open-sesame-sesame") == 405
    assert transfers(nodes) == []


def asked(url: str, method: str, path: str, **headers: str) -> int:
    request = urllib.request.Request(f"{url}/api/v1/{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_cancelled_transfer_is_removed_and_reported_to_its_client(nodes: Nodes, seeder: str) -> None:
    daemon(nodes, seeder, "--download-limit", SLOW)
    fetch = nodes.start("node", "fetch", REPO, "--priority", "3", "--progress", "json")
    eventually(lambda: fetch.progress().get("from_peers", 0) > 0, PATIENCE, lambda: str(fetch.progress()))
    assert one(nodes)["priority"] == 3
    nodes.ok("node", "cancel", REPO)
    done = fetch.wait()
    assert done.code == 1
    assert "was cancelled; the same command starts it again" in done.err
    assert transfers(nodes) == []


def test_its_log_is_json_without_a_terminal(nodes: Nodes, seeder: str) -> None:
    running = daemon(nodes, seeder)
    nodes.ok("node", "fetch", REPO, "-q")
    done = running.stop()
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines)
    assert any(line["event"] == "snapshot_ready" and "is ready at" in line["message"] for line in lines)


def bound(nodes: Nodes) -> str:
    """What binds the one transfer now."""
    [found] = nodes.ok("node", "why", REPO, "--json").json["transfers"]
    return str(found["bound"])


def test_a_limit_takes_effect_while_it_runs(nodes: Nodes, model: Path, seeder: str) -> None:
    daemon(nodes, seeder, "--download-limit", SLOW)
    fetch = nodes.start("node", "fetch", REPO, "--json", "--progress", "json")
    eventually(lambda: fetch.progress().get("peers", 0) > 0, PATIENCE, lambda: str(fetch.progress()))
    time.sleep(1.0)
    assert one(nodes)["progress"]["done"] < SIZE // 4
    eventually(lambda: bound(nodes) in ("limit", "disk"), PATIENCE, lambda: bound(nodes))
    shown = nodes.ok("node", "limits", "--download", "0", "--upload", "1MB", "--json").json
    assert (shown["upload"], shown["download_now"]) == (1_000_000, 0)
    assert fetch.wait().code == 0
    assert nodes.ok("node", "limits").out == "up    1.0 MB/s\ndown  no limit\n"
    assert published(nodes) == contents(model)


def test_a_snapshot_from_mirrors_is_offered_to_the_swarm(nodes: Nodes, model: Path) -> None:
    hub, log = nodes.hub(model, repo=REPO)
    tracker = str(nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json").ready()["url"])
    where = ("--coordinator", tracker, "--endpoint", hub, "--swarm-listen", "127.0.0.11:0", "--json")
    running = nodes.start("node", "daemon", *where)
    running.ready()
    first = nodes.ok("node", "fetch", REPO, "--json").json
    assert first["from_mirrors"] == first["size"]
    until(nodes, "seeding")
    before = len(served(log))
    fetch = nodes.fetch("other", REPO, "--coordinator", tracker, "--endpoint", DEAD, address="127.0.0.12")
    other = fetch.wait()
    assert other.code == 0, other.err
    assert other.json["from_peers"] == other.json["size"]
    assert len(served(log)) == before
    stopped_well(running)
    nodes.start("node", "daemon", *where).ready()
    assert until(nodes, "seeding")["progress"]["from_cache"] == first["size"]
