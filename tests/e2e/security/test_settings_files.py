"""Settings and secrets come from this user's own files alone, and state is this user's alone."""

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.processes import P2PMODEL, PATIENCE, ROOT, Nodes, environment

SECRET = "the-secret-of-another-program"
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


class Attacker:
    """A mirror that writes down what it is sent, and refuses it."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        requests = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(f"{self.requestline}\n{self.headers}")
                self.send_error(404)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.9", 0), Handler)
        self.url = f"http://127.0.0.9:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


@pytest.fixture
def attacker() -> Iterator[Attacker]:
    running = Attacker()
    yield running
    running.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 300_000)
    (folder / "config.json").write_text("{}")
    return folder


def settings_of(attacker: Attacker, variable: str = "AWS_SECRET_ACCESS_KEY") -> str:
    return f'[[mirrors]]\nname = "fast"\nendpoint = "{attacker.url}"\ntoken_env = "{variable}"\n'


def test_a_settings_file_in_the_current_folder_sends_nothing(
    nodes: Nodes, model: Path, attacker: Attacker, tmp_path: Path
) -> None:
    hub, _ = nodes.hub(model)
    repository = tmp_path / "cloned"
    repository.mkdir()
    (repository / "p2pmodel.toml").write_text(settings_of(attacker, "HF_TOKEN"))
    env = environment(
        nodes.cache("victim"), HF_ENDPOINT=hub, HF_TOKEN=SECRET, AWS_SECRET_ACCESS_KEY=SECRET, PYTHONPATH=str(ROOT)
    )
    command = [*P2PMODEL, "fetch", "org/model", "--swarm-listen", "127.0.0.11:0", "-q"]
    done = subprocess.run(
        command, check=False, cwd=repository, env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert attacker.requests == []


def test_a_named_settings_file_cannot_ask_for_the_secrets_of_other_programs(
    nodes: Nodes, attacker: Attacker, tmp_path: Path
) -> None:
    config = tmp_path / "found.toml"
    config.write_text(settings_of(attacker))
    done = nodes.run("victim", "fetch", "org/model", "--config", config, AWS_SECRET_ACCESS_KEY=SECRET)
    assert done.code == 2
    assert "token_env 'AWS_SECRET_ACCESS_KEY' is not the name of a mirror's token" in done.err
    assert SECRET not in done.err
    assert attacker.requests == []


@ROOT_ONLY
@pytest.mark.parametrize("usual", [True, False])
def test_a_settings_file_of_another_user_is_refused(
    nodes: Nodes, attacker: Attacker, tmp_path: Path, usual: bool
) -> None:
    config = nodes.root / "victim/.config/p2pmodel/p2pmodel.toml" if usual else tmp_path / "p2pmodel.toml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(settings_of(attacker, "HF_TOKEN"))
    os.chown(config, 65534, 65534)
    named = () if usual else ("--config", config)
    done = nodes.run("victim", "fetch", "org/model", *named, HF_TOKEN=SECRET)
    assert done.code == 2
    assert "belongs to another user (uid 65534)" in done.err
    assert attacker.requests == []


def test_a_settings_file_that_others_can_change_is_refused(nodes: Nodes, attacker: Attacker, tmp_path: Path) -> None:
    config = tmp_path / "p2pmodel.toml"
    config.write_text(settings_of(attacker, "HF_TOKEN"))
    for mode in (0o664, 0o646):
        config.chmod(mode)
        done = nodes.run("victim", "fetch", "org/model", HF_TOKEN=SECRET, P2PMODEL_CONFIG=str(config))
        assert done.code == 2
        assert f"others can change the settings file {config}; chmod go-w {config}" in done.err
    assert attacker.requests == []


@pytest.mark.parametrize("verb", [("coordinator",), ("seed", "org/model"), ("mirror", "serve"), ("daemon",)])
def test_a_token_file_that_others_can_read_is_refused(nodes: Nodes, tmp_path: Path, verb: tuple[str, ...]) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123456789abcdef")
    listen = ("--control-listen", "127.0.0.5:0") if verb == ("daemon",) else ()
    done = nodes.run("server", *verb, "--token-file", token, *listen)
    assert done.code == 2
    assert f"others can read the token file {token}; chmod 600 {token}" in done.err


LOCAL_USER = """
import json, os, socket, sys
def tried(path):
    try:
        return os.open(path, os.O_RDONLY) >= 0
    except OSError:
        return False
def connects(path):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        return True
    except OSError:
        return False
print(json.dumps([path for path in sys.argv[1:] if tried(path) or connects(path)]))
"""


@ROOT_ONLY
@pytest.mark.needs("setpriv")
def test_another_user_of_the_machine_opens_nothing_of_a_daemon(nodes: Nodes, model: Path) -> None:
    hub, _ = nodes.hub(model)
    before = os.umask(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            opened, control = opened_by_another_user(nodes, Path(folder), hub)
    finally:
        os.umask(before)
    assert opened == [control]


def opened_by_another_user(nodes: Nodes, root: Path, hub: str) -> tuple[list[str], str]:
    """What user 65534 can open of a daemon below `root`, and the one file that all may open."""
    root.chmod(0o755)
    config = root / "p2pmodel.toml"
    config.touch(mode=0o600)
    config.write_text(f"[[mirrors]]\nname = 'hub'\nendpoint = '{hub}'\ntoken = '{SECRET}'\n")
    options = ("--swarm-listen", "127.0.0.11:0", "--hub-listen", "off", "--config", config, "--json")
    where = {"P2PMODEL_STATE_DIR": str(root / "state"), "HF_HUB_CACHE": str(root / "hub")}
    daemon = nodes.start("node", "daemon", *options, **where)
    socket = Path(daemon.ready()["socket"])
    nodes.ok("node", "fetch", "org/model", "-q", "--socket", socket, **where)
    repo = root / "hub/models--org--model"
    [control] = repo.glob("snapshots/*/config.json")
    private = [config, socket, root / "state", *(root / "state").rglob("*"), *(repo / ".p2pmodel").rglob("*")]
    assert socket in private[2:]
    as_another = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", LOCAL_USER]
    command = [*as_another, *map(str, [*private, repo / ".p2pmodel", control])]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE)
    daemon.stop()
    return json.loads(done.stdout), str(control)


def open_to_others(folder: Path) -> list[str]:
    """The folders, files and sockets below `folder`, and itself, that other users have any right to."""
    found = [folder, *folder.rglob("*")]
    return [str(path) for path in found if stat.S_IMODE(path.lstat().st_mode) & 0o077 and not path.is_symlink()]


def test_without_a_umask_state_is_private_all_the_same(nodes: Nodes, model: Path) -> None:
    hub, _ = nodes.hub(model)
    before = os.umask(0)
    try:
        seeder = nodes.seed("org/model", "-o", nodes.root / "out.torrent", HF_ENDPOINT=hub)
        url = seeder.ready()["coordinator"]
        state = nodes.root / "coordinator/state"
        own = ("--listen", "127.0.0.4:0", "--state-dir", state, "--json")
        nodes.start("coordinator", "coordinator", *own).ready()
        log = nodes.root / "access.log"
        served = ("--swarm-listen", "127.0.0.11:0", "--hub-listen", "127.0.0.11:0", "--access-log", log)
        nodes.start("node", "daemon", *served, "--coordinator", url, "--json", HF_ENDPOINT=hub).ready()
        nodes.ok("node", "fetch", "org/model", "-q", HF_ENDPOINT=hub)
        nodes.ok("mirror", "mirror", "sync", "org/model", "--endpoint", hub, "-q")
    finally:
        os.umask(before)
    states = [nodes.root / node / ".local" for node in ("node", "mirror", "seeder")]
    assert all(path.is_dir() for path in states)
    private = nodes.cache("node") / "models--org--model/.p2pmodel"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for folder in (*states, state, log, nodes.root / "out.torrent"):
        assert open_to_others(folder) == []
