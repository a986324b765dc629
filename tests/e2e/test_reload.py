"""SIGHUP: real servers read settings, tokens and certificates again, and go on in new log files."""

import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.certificates import authority
from tests.support.processes import PATIENCE, Nodes, Running, eventually

DEAD = "http://127.0.0.1:9"
OLD, NEW = "old-token-old-token", "new-token-new-token"
LIMIT = '[swarm]\ndownload_limit = "{}"\nzone = "{}"\n'


def secret(path: Path, text: str) -> Path:
    path.touch(0o600)
    path.write_text(text)
    return path


def reload(server: Running, said: str) -> None:
    """Send SIGHUP, and wait until the reload is over and the log has `said`."""
    before = len(server.err)
    server.process.send_signal(signal.SIGHUP)

    def done() -> bool:
        new = "".join(server.err[before:])
        return '"reloaded"' in new and said in new

    eventually(done, PATIENCE, lambda: "".join(server.err[before:]))


def test_a_daemon_reloads_limits_token_and_certificate(nodes: Nodes, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        authority(folder)
    certificate, key = tmp_path / "cert.pem", secret(tmp_path / "key.pem", (first / "key.pem").read_text())
    certificate.write_text((first / "ca.pem").read_text())
    token, config = secret(tmp_path / "token", OLD), secret(tmp_path / "daemon.toml", LIMIT.format("2MB", "a"))
    where = ("--control-listen", "127.0.0.1:0", "--hub-listen", "off", "--endpoint", DEAD, "--token-file", token)
    tls = ("--tls-cert", certificate, "--tls-key", key, "--config", config)
    daemon = nodes.start("far", "daemon", *where, *tls, "--json")
    url = str(daemon.ready()["url"])
    before = ("--server", url, "--ca-file", first / "ca.pem", "--server-token-file", secret(tmp_path / "mine", OLD))
    assert nodes.ok("near", "limits", *before, "--json").json["download"] == 2_000_000

    config.write_text(LIMIT.format("3MB", "b"))
    token.write_text(NEW)
    certificate.write_text((second / "ca.pem").read_text())
    key.write_text((second / "key.pem").read_text())
    reload(daemon, "swarm.zone changes at a restart")
    after = ("--server", url, "--ca-file", second / "ca.pem", "--server-token-file", secret(tmp_path / "new", NEW))
    assert nodes.ok("near", "limits", *after, "--json").json["download"] == 3_000_000
    assert nodes.run("near", "status", *before).code == 6  # another authority
    assert nodes.run("near", "status", *after[:4], "--server-token-file", tmp_path / "mine").code == 4

    config.write_text("[swarm]\nno_such_setting = 1\n")
    key.write_text("nothing")
    reload(daemon, "no_such_setting")
    assert nodes.ok("near", "limits", *after, "--json").json["download"] == 3_000_000
    assert daemon.stop().code == 0


def test_a_coordinator_takes_new_tokens(nodes: Nodes, tmp_path: Path) -> None:
    token = secret(tmp_path / "members", OLD)
    coordinator = nodes.start("c", "coordinator", "--listen", "127.0.0.1:0", "--token-file", token, "--json")
    url = str(coordinator.ready()["url"])
    assert status(f"{url}/catalog", OLD) == 200
    token.write_text(NEW)
    reload(coordinator, "token files")
    assert (status(f"{url}/catalog", OLD), status(f"{url}/catalog", NEW)) == (401, 200)


def test_a_mirror_takes_a_new_token_and_its_access_log_survives_rotation(nodes: Nodes, tmp_path: Path) -> None:
    token, log = secret(tmp_path / "token", OLD), tmp_path / "access.jsonl"
    nodes.cache("m").mkdir(parents=True, exist_ok=True)
    options = ("--listen", "127.0.0.1:0", "--token-file", token, "--access-log", log, "--json")
    mirror = nodes.start("m", "mirror", "serve", *options)
    url = f"{mirror.ready()['endpoint']}/api/models/org/none"
    assert status(url, OLD) == 404
    token.write_text(NEW)
    reload(mirror, "reloaded: settings, certificate authorities, token")
    log.rename(tmp_path / "access.jsonl.1")
    eventually(lambda: status(url, NEW) == 404 and log.exists(), PATIENCE)
    assert log.read_text().count("\n") >= 1
    assert log.stat().st_mode & 0o777 == 0o600
    assert status(url, OLD) == 401


def status(url: str, token: str) -> int:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize("command", [("mirrors", "watch", "--interval", "60"), ("mirror", "sync", "--every", "6h")])
def test_other_services_survive_a_hangup(nodes: Nodes, command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "list").write_text("")
    extra = ("--list", tmp_path / "list") if "sync" in command else ("--json",)
    service = nodes.start("s", *command, *extra, "--endpoint", DEAD)
    eventually(lambda: _handles_hangup(service), PATIENCE)
    reload(service, "reloaded")
    assert service.stop().code == 0


def _handles_hangup(running: Running) -> bool:
    """Whether the process has a handler for SIGHUP."""
    for line in Path(f"/proc/{running.process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) & 1)
    return False
