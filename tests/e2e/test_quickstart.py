"""The commands of docs/quickstart.md, run exactly as written.

Each host of the document is a network namespace with a home directory of its own. All hosts share the working
directory, so the token file needs no copying. The hub is a double in a further namespace. HF_ENDPOINT, which the
document names as the way to choose where the bytes come from, is all that is added.
"""

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.bench.rigs import namespaces
from tests.support.processes import Running, eventually, served

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
STRICT = os.environ.get("P2PMODEL_TEST_STRICT") == "1"
HUNG = 300.0
"""Seconds after which a command counts as hung; all of them together take about 20."""

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*) -->\n)?```(?P<kind>\w*)\n(?P<script>.*?)^```$", re.MULTILINE | re.DOTALL
)
_RUN = re.compile(r"run: (?P<host>[a-z-]+)(?:, until: (?P<until>.+))?")
_ROW = re.compile(r"^\| (host-[a-z]) \| ([0-9.]+) \|", re.MULTILINE)
_REPO = re.compile(r"p2pmodel seed (\S+)")


@dataclass(frozen=True)
class Step:
    """One block of commands; `until` is what a server prints once it is ready, "" for commands that end."""

    host: str
    script: str
    until: str = ""


def steps(text: str) -> list[Step]:
    """The marked blocks in their order; AssertionError for a block without a mark."""
    found = []
    for block in _BLOCK.finditer(text):
        mark = block["mark"] or ""
        if mark.startswith("not run: "):
            continue
        run = _RUN.fullmatch(mark)
        assert run, f"this block has neither a host that it runs on nor a reason why it is not run:\n{block['script']}"
        assert block["kind"] == "console"
        found.append(Step(run["host"], block["script"], run["until"] or ""))
    return found


def _refused() -> str:
    """Why this machine can have no hosts; "" if it can."""
    if reason := namespaces.unavailable():
        return reason
    probe = f"p2pq{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"it may make no network namespaces ({made.stderr.strip()})"
    namespaces.ip("netns", "delete", probe)
    return ""


class Hosts:
    """Network namespaces on one bridge, each with a home directory below `root`."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root = root
        self.work = root / "work"
        self.work.mkdir()
        self.endpoint = ""
        self._tag = f"p2pq{os.getpid()}"
        self._stack = stack
        namespaces.add_namespace(self._tag, stack)
        namespaces.ip("-n", self._tag, "link", "add", "bridge0", "type", "bridge")
        namespaces.ip("-n", self._tag, "link", "set", "bridge0", "up")
        self._bin = root / "bin"
        self._bin.mkdir()
        command = self._bin / "p2pmodel"
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m p2pmodel "$@"\n')
        command.chmod(0o755)

    def add(self, host: str, address: str) -> None:
        """A host that the others reach at `address`."""
        name, (network, _, _) = f"{self._tag}-{host}", address.rpartition(".")
        namespaces.add_namespace(name, self._stack)
        namespaces.join(self._tag, host, name, "link0")
        namespaces.ip("-n", self._tag, "link", "set", host, "master", "bridge0", "up")
        namespaces.ip("-n", name, "address", "add", f"{address}/24", "broadcast", f"{network}.255", "dev", "link0")
        namespaces.ip("-n", name, "link", "set", "link0", "up")
        self.home(host).mkdir()

    def home(self, host: str) -> Path:
        """The home directory of `host`."""
        return self.root / host

    def start(self, host: str, *command: str) -> Running:
        """Start a command on `host`; what it started is killed with it."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "P2PMODEL_", "XDG_"))}
        path = os.pathsep.join((str(self._bin), str(Path(sys.executable).parent), os.environ["PATH"]))
        own = {"HOME": str(self.home(host)), "PATH": path, "PYTHONPATH": str(ROOT)}
        if self.endpoint:
            own["HF_ENDPOINT"] = self.endpoint
        process = subprocess.Popen(
            namespaces.inside(f"{self._tag}-{host}", command),
            cwd=self.work,
            env=inherited | own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._stack.callback(_kill, process)
        return Running(process)


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # the shell may have ended before what it started
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """A bridge without hosts."""
    if reason := _refused():
        message = f"the hosts of the quickstart cannot be made: {reason}"
        if STRICT:
            pytest.fail(message)
        pytest.skip(message)
    with ExitStack() as stack:
        yield Hosts(tmp_path, stack)


def _model(folder: Path) -> dict[str, bytes]:
    """The files of a small model; content in which no piece repeats."""
    draw = random.Random(1)
    files = {
        "config.json": b"{}\n",
        "model.safetensors": draw.randbytes(6 << 20),
        "tokenizer.json": draw.randbytes(9000),
    }
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files


def _hub(hosts: Hosts, repo: str, address: str, log: Path) -> dict[str, bytes]:
    """Serve a small model under the name `repo` at `address`, and make it the hosts' HF_ENDPOINT."""
    files = _model(hosts.root / "model")
    hosts.add("hub", address)
    options = ["--dir", str(hosts.root / "model"), "--repo", repo, "--host", address, "--port", "0", "--log", str(log)]
    hub = hosts.start("hub", sys.executable, "-m", "tests.support.fake_hub", *options)
    hosts.endpoint = str(hub.ready(HUNG)["url"])
    return files


def _printed(running: Running) -> str:
    return "".join((*running.out, *running.err))


def _is_ready(running: Running, until: str) -> Callable[[], bool]:
    def is_ready() -> bool:
        assert running.process.poll() is None, f"it ended: {_printed(running)}"
        return until in _printed(running)

    return is_ready


def test_every_block_names_its_host() -> None:
    assert [step.host for step in steps(TEXT)].count("host-a") >= 3
    assert {step.host for step in steps(TEXT)} == dict(_ROW.findall(TEXT)).keys()
    with pytest.raises(AssertionError, match="neither a host"):
        steps("```console\np2pmodel ls\n```\n")


@pytest.mark.needs("bash", "openssl")
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_as_written_bring_the_model_to_three_nodes(hosts: Hosts, tmp_path: Path) -> None:
    found = _REPO.search(TEXT)
    assert found
    repo, log = found[1], tmp_path / "hub.log"
    files = _hub(hosts, repo, "10.0.0.100", log)
    for host, address in _ROW.findall(TEXT):
        hosts.add(host, address)
    servers = []
    for step in steps(TEXT):
        running = hosts.start(step.host, "bash", "-euo", "pipefail", "-c", step.script)
        if step.until:
            servers.append(running)
            eventually(_is_ready(running, step.until), HUNG, lambda running=running: _printed(running))  # type: ignore[misc]
        else:
            done = running.wait(HUNG)
            assert done.code == 0, f"{step}\n{done.out}\n{done.err}"

    for host in ("host-b", "host-c", "host-d"):
        (snapshot,) = hosts.home(host).glob(f".cache/huggingface/hub/models--{repo.replace('/', '--')}/snapshots/*")
        assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == files, host
    size = sum(map(len, files.values()))
    assert sum(entry["sent"] for entry in served(log)) < 1.5 * size, "the hub sends one copy"
    for running in servers:
        # Ctrl-C: the terminal sends it to the whole group.
        os.killpg(running.process.pid, signal.SIGINT)
    for running in servers:
        assert "Traceback" not in running.wait(HUNG).err
