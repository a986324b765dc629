"""`p2pmodel mirrors watch`: an alarm raised and cleared, on stderr, in Prometheus and at a real webhook."""

import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from tests.support.processes import PATIENCE, Nodes, eventually

QUICK = ("--interval", "0.2", "--min-samples", "3")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 2000)
    return folder


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict]]]:
    """The URL of a server that keeps what is posted to it, and that."""
    got: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?key=secret", got
    server.shutdown()
    server.server_close()
    thread.join()


def scraped(url: str) -> dict[str, float]:
    with build_opener(ProxyHandler({})).open(url, timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (li.rpartition(" ") for li in lines if not li.startswith("#"))}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_mirror_that_is_down_and_recovers(nodes: Nodes, model: Path, webhook: tuple[str, list[dict]]) -> None:
    url, got = webhook
    port = free_port()
    mirror = f"http://127.0.0.2:{port}"
    config = nodes.root / "watch.toml"
    config.touch(mode=0o600)
    config.write_text(f'[[mirrors]]\nname = "edge"\nendpoint = "{mirror}"\n[watch]\nwebhook = "{url}"\n')
    watch = nodes.start(
        "node", "mirrors", "watch", *QUICK, "--max-latency-ms", "5000", "--metrics", "127.0.0.1:0", "--json",
        P2PMODEL_CONFIG=str(config),
    )  # fmt: skip
    metrics = watch.ready()["metrics"]
    eventually(lambda: bool(got), PATIENCE, lambda: "".join(watch.err))
    figures = scraped(metrics)
    assert figures['p2pmodel_mirror_alarm{metric="speed",mirror="edge"}'] == 0
    assert figures['p2pmodel_mirror_up{mirror="edge"}'] == 0
    assert figures['p2pmodel_mirror_alarm{metric="latency",mirror="edge"}'] == 1
    assert figures['p2pmodel_mirror_probes_total{mirror="edge",result="failed"}'] >= 3
    assert 'p2pmodel_mirror_connect_seconds{mirror="edge"}' not in figures

    (nodes.cache("mirror")).mkdir(parents=True)
    nodes.mirror(address=f"127.0.0.2:{port}")
    eventually(lambda: len(got) > 1, PATIENCE, lambda: "".join(watch.err))
    figures = scraped(metrics)
    assert figures['p2pmodel_mirror_up{mirror="edge"}'] == 1
    assert figures['p2pmodel_mirror_alarm{metric="latency",mirror="edge"}'] == 0
    assert 0 < figures['p2pmodel_mirror_connect_seconds{mirror="edge"}'] < PATIENCE

    done = watch.stop(signal.SIGTERM)
    assert done.code == 0
    alarm, recovery = got
    assert (alarm["event"], alarm["metric"], alarm["value"], alarm["error"]) == (
        "alarm", "latency", None, "connection refused",
    )  # fmt: skip
    assert (recovery["event"], recovery["mirror"], recovery["endpoint"]) == ("recovered", "edge", mirror)
    assert recovery["lasted"] > 0
    assert [json.loads(line) for line in done.out.splitlines()[1:]] == got
    alarms = [line for line in done.err.splitlines() if line.startswith(("alarm:", "recovered:"))]
    assert alarms[0] == "alarm: mirror edge: no valid response (connection refused)"
    assert alarms[1].startswith("recovered: mirror edge: connects in ")
    assert len(alarms) == 2
    assert "secret" not in done.err


def test_once_reports_a_slow_mirror_by_its_exit_code(nodes: Nodes, model: Path) -> None:
    slow, _ = nodes.hub(model, "slow:2000000")
    once = ("mirrors", "watch", "org/model", "--endpoint", slow, "--once", "--min-samples", "2")
    done = nodes.run("node", *once, "--max-latency-ms", "5000")
    assert done.code == 1
    alarm, line = done.err.splitlines()
    assert alarm.startswith("alarm: mirror 127.0.0.1:")
    assert alarm.endswith(" MB/s, below 50 MB/s")
    assert line == "p2pmodel: 1 alarm is raised"
    fine = nodes.ok("node", *once, "--max-latency-ms", "5000", "--min-mbps", "0.1")
    assert (fine.out, fine.err) == ("", "")


def test_ctrl_c_ends_it(nodes: Nodes, model: Path) -> None:
    watch = nodes.start("node", "mirrors", "watch", "--endpoint", nodes.hub(model)[0], "--json")
    assert watch.ready() == {"metrics": None}
    done = watch.stop(signal.SIGINT)
    assert (done.code, done.err) == (130, "p2pmodel: the watch was stopped\n")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--metrics", "0.0.0.0:0"], "0.0.0.0:0 is reachable from other machines"),
        (
            ["--metrics", "nowhere"],
            "setting watch.metrics or P2PMODEL_WATCH_METRICS: 'nowhere' is not an address with its port",
        ),
        (["--min-samples", "0"], "'--min-samples'"),
        (["--interval", "0"], "setting watch.interval or P2PMODEL_WATCH_INTERVAL: "),
    ],
)
def test_bad_input_is_one_line(nodes: Nodes, args: list[str], line: str) -> None:
    done = nodes.run("node", "mirrors", "watch", *args, P2PMODEL_ENDPOINTS="http://127.0.0.1:9")
    assert done.code == 2
    assert line in done.err
    assert len(done.err.splitlines()) == 1


def test_a_wrong_webhook_is_not_shown(nodes: Nodes) -> None:
    env = {"P2PMODEL_ENDPOINTS": "http://127.0.0.1:9", "P2PMODEL_WATCH_WEBHOOK": "ftp://x/hook/secret?key=secret"}
    done = nodes.run("node", "mirrors", "watch", **env)
    assert done.code == 2
    assert "setting watch.webhook or P2PMODEL_WATCH_WEBHOOK: 'ftp://x' is not an http:// or https:// URL" in done.err
    assert "secret" not in done.err
