"""Every server tells its health and its metrics; promtool finds nothing to complain about, and no text is a `repr`."""

import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes, Running, token_file
from tests.support.tiny_models import copy_of, dense, text_only

__all__ = ["dense", "text_only"]

pytestmark = pytest.mark.needs("promtool")

REPRS = re.compile(r" object at 0x|<bound method|<function |<class '|<generator |<coroutine |\(<.*>,\)")
BASE = {"p2pmodel_build_info", "process_start_time_seconds", "process_resident_memory_bytes", "process_open_fds"}


def got(url: str, token: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def stopped(server: Running) -> str:
    """Everything that it has printed."""
    done = server.stop()
    assert done.code == 0, done.err
    return done.out + done.err


def check(base: str, token: str, own: set[str]) -> str:
    assert got(f"{base}/healthz") == (200, '{"status": "ok"}')
    got(f"{base}/nothing/here", token)
    status, text = got(f"{base}/metrics", token)
    assert status == 200, text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, ""), base
    names = set(re.findall(r"^([a-z0-9_]+)[ {]", text, re.MULTILINE))
    assert own | BASE <= names
    for family, kind in re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE):
        assert (kind == "counter") == family.endswith("_total"), family
    assert not REPRS.search(text)
    return text


def test_every_server_has_health_and_metrics(nodes: Nodes, tmp_path: Path, text_only: Path) -> None:
    model = copy_of(text_only, tmp_path / "model")
    hub, _ = nodes.hub(model)
    secret = token_file(tmp_path / "token")
    token = secret.read_text().strip()
    http = {"p2pmodel_http_requests_total", "p2pmodel_http_sent_bytes_total", "p2pmodel_http_open_requests"}
    at = ("--listen", "127.0.0.1:0")
    stalled, _ = nodes.hub(model, "stall@*.safetensors")
    servers = [
        (
            nodes.start("c", "coordinator", *at, "--token-file", secret, "--json"),
            "url",
            http | {"p2pmodel_catalog_torrents", "p2pmodel_tracker_peers"},
        ),
        (
            nodes.start("m", "mirror", "serve", *at, "--token-file", secret, "--upstream", hub, "--json"),
            "endpoint",
            http | {"p2pmodel_cache_bytes", "p2pmodel_mirror_state"},
        ),
        (
            nodes.start("v", "serve", "org/model", *at, "--endpoint", stalled, "--json"),
            "url",
            http | {"p2pmodel_model_ready", "p2pmodel_answers_total"},
        ),
        (nodes.start("s", "seed", "org/model", *at, "--endpoint", hub, "--json"), "coordinator", http),
        (
            nodes.start("d", "daemon", "--control-listen", "127.0.0.1:0", "--endpoint", hub, "--json"),
            "url",
            http | {"p2pmodel_transfers"},
        ),
        (
            nodes.start("w", "mirrors", "watch", "--metrics", "127.0.0.1:0", "--endpoint", hub, "--json"),
            "metrics",
            {"p2pmodel_mirror_up"},
        ),
    ]
    for server, key, own in servers:
        base = str(server.ready()[key]).removesuffix("/metrics")
        secured = key in ("url", "endpoint") and got(f"{base}/metrics")[0] == 401
        if key == "metrics":
            deadline = time.monotonic() + 60
            while "p2pmodel_mirror_up{" not in got(f"{base}/metrics")[1] and time.monotonic() < deadline:
                time.sleep(0.2)
        text = check(base, token if secured else "", own)
        if key == "endpoint":
            assert secured
            assert 'p2pmodel_mirror_state{mirror="' in text
            assert not re.search(r'state="healthy"} 1', text), "it was never asked"
            assert "p2pmodel_mirror_up{" not in text
            assert re.search(r'p2pmodel_http_requests_total{code="401",server="hub"} 1', text)
        if key == "url" and own & {"p2pmodel_transfers"}:
            assert 'server="hub"' in text
            assert 'server="source"' in text
    for command in ("status", "ls", "limits", "mirrors ls", "env", "torrent show x", "verify x/y"):
        for options in ((), ("--json",)):
            done = nodes.run("d", *command.split(), *options)
            assert not REPRS.search(done.out + done.err), command
    for server, _, _ in servers:
        assert not REPRS.search(stopped(server))
