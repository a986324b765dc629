"""Output on stdout and elsewhere: plans, JSON, help, terminals, closed pipes; and modules that are not loaded."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.in_thread import in_thread
from tests.support.processes import P2PMODEL, PATIENCE, Nodes, environment

REPO = "org/model"
FILES = {"config.json": b"{}", "model.safetensors": b"w" * 300_000, "notes/read me.txt": b"hello"}
MODEL = snapshot_of(FILES)
HEAVY = ("libtorrent", "torch", "transformers", "huggingface_hub", "aiohttp", "pydantic")
VERBS = (
    *((verb,) for verb in ("coordinator", "fetch", "import", "mirror", "seed", "torrent", "verify")),
    *(("mirror", "serve"), ("torrent", "create"), ("torrent", "show")),
)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with in_thread(FakeHub(MODEL)) as running:
        yield running


def test_a_dry_run_lists_missing_files_and_downloads_no_bytes(cli: CommandLine, hub: FakeHub):
    plan = ("fetch", REPO, "--endpoint", hub.url, "--dry-run")
    done = cli(*plan, "-q")
    assert done.code == 0
    header, *rows = done.out.splitlines()
    assert header.endswith("FILE")
    amounts = {"config.json": "2 bytes", "model.safetensors": "300.0 kB", "notes/read me.txt": "5 bytes"}
    for row, (path, amount) in zip(rows, {**amounts, "total": "300.0 kB"}.items(), strict=True):
        assert re.fullmatch(rf"{amount} .* {path}", row)
    plain = json.loads(cli(*plan, "--json").out)
    assert (plain["repo"], plain["commit"], plain["download"]) == (REPO, MODEL.commit, 300_007)
    assert {file["path"]: file["download"] for file in plain["files"]} == {p: len(data) for p, data in FILES.items()}
    assert f"3 files, 300.0 kB to download of {REPO}@{MODEL.commit}" in cli(*plan).err
    assert not [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]
    assert not list(cli.hub.rglob("blobs"))

    cli("fetch", REPO, "--endpoint", hub.url, "--exclude", "*.safetensors")
    rest = json.loads(cli(*plan, "--json").out)
    assert [f["path"] for f in rest["files"]] == ["model.safetensors"]
    assert rest["download"] == 300_000


def test_a_dry_run_of_a_torrent(cli: CommandLine, hub: FakeHub):
    torrent = cli.home / "m.torrent"
    cli("seed", REPO, "--endpoint", hub.url, "--once", "-o", torrent)
    done = cli("fetch", torrent, "--dry-run", "--json", "--cache-dir", cli.home / "other")
    assert json.loads(done.out)["download"] == 300_007


def test_stdout_is_the_path_or_one_object(cli: CommandLine, hub: FakeHub):
    at = ("--endpoint", hub.url)
    torrent = cli.home / "m.torrent"
    path = cli.ok("fetch", REPO, *at)
    assert Path(path).is_dir()
    assert cli.ok("verify", REPO) == cli.ok("seed", REPO, *at, "--once") == path
    assert cli.ok("torrent", "create", REPO, "-o", torrent) == str(torrent)
    said = {
        "fetch": cli("fetch", REPO, *at, "--json"),
        "verify": cli("verify", REPO, "--json"),
        "seed": cli("seed", REPO, *at, "--once", "--json"),
        "create": cli("torrent", "create", REPO, "-o", torrent, "--json"),
        "show": cli("torrent", "show", torrent, "--json"),
    }
    for verb, done in said.items():
        assert done.out.count("\n") == 1, verb
        plain = json.loads(done.out)
        assert plain["repo"] == REPO
        assert plain["commit"] == MODEL.commit
        if verb in ("fetch", "verify", "seed"):
            assert plain["path"] == path
    hashes = {json.loads(said[verb].out)["info_hash"] for verb in ("seed", "create", "show")}
    assert len(hashes) == 1
    assert json.loads(said["fetch"].out)["from_cache"] == 300_007


def test_quiet_is_quiet(cli: CommandLine, hub: FakeHub):
    for args in (
        ("fetch", REPO, "--endpoint", hub.url),
        ("seed", REPO, "--endpoint", hub.url, "--once"),
        ("verify", REPO),
        ("torrent", "create", REPO, "-o", str(cli.home / "x.torrent")),
    ):
        assert cli(*args, "-q").err == ""
    silent = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    assert cli("verify", REPO, **silent).err == ""
    assert "checking" in cli("verify", REPO, "--progress", "json", **silent).err


@pytest.mark.parametrize(("style", "whole"), [("plain", r"[a-z0-9].*"), ("json", r"\{.*\}")])
def test_progress_in_lines_is_whole_lines(cli: CommandLine, hub: FakeHub, style: str, whole: str):
    folder = cli.home / "folder"
    folder.mkdir()
    (folder / "some.bin").write_bytes(b"x" * 5_000_000)
    for args in (
        ("fetch", REPO, "--endpoint", hub.url),
        ("seed", REPO, "--endpoint", hub.url, "--once"),
        ("verify", REPO),
        ("torrent", "create", REPO, "-o", "x.torrent"),
        ("import", str(folder), "org/other"),
    ):
        done = cli(*args, "--progress", style)
        assert done.code == 0, done
        assert done.err == "" or done.err.endswith("\n")
        assert "\r" not in done.err
        for line in done.err.splitlines():
            assert re.fullmatch(whole, line), line


# -- help and what is loaded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_explains_itself(cli: CommandLine, verb: tuple[str, ...]):
    done = cli(*verb, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: p2pmodel {' '.join(verb)}")
    summary = done.out.split("\n\n")[1].splitlines()[0].strip()
    assert summary.endswith((".", ",")) or len(summary) > 20
    undescribed = re.findall(r"^  (-[^ ]+(?:, --[a-z-]+)?(?: [A-Z|:@\[\]]+)?)$(?!\n {10})", done.out, re.MULTILINE)
    assert not undescribed


def test_the_program_explains_itself(cli: CommandLine):
    done = cli("--help")
    assert (done.code, done.err) == (0, "")
    for verb in VERBS:
        assert re.search(rf"^  {verb[0]} ", done.out, re.MULTILINE)
    assert "7 this machine" in done.out
    assert re.fullmatch(r"p2pmodel, version \d+\.\d+\.\d+\n", cli("--version").out)


def test_no_verb_at_all_is_usage_and_helps(cli: CommandLine):
    for group in ((), ("torrent",), ("mirror",)):
        done = cli(*group)
        assert (done.code, done.out) == (2, "")
        assert done.err == cli(*group, "--help").out


def loaded(*args: str, cache: Path | None = None) -> set[str]:
    """Which heavy libraries a command has imported when it ends."""
    code = "import sys, p2pmodel.cli as cli\ntry: cli.main()\nexcept SystemExit as end: assert not end.code, end.code\n"
    code += f"print('LOADED', *[name for name in {HEAVY} if name in sys.modules])"
    env = environment(cache) if cache else None
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=PATIENCE)
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_loads_no_library_it_does_not_need():
    assert loaded("--version") == set()
    assert not loaded("--help") & {"libtorrent", "torch", "transformers"}
    assert not loaded("fetch", "--help") & {"torch", "transformers"}


def test_a_fetch_without_load_imports_neither_torch_nor_transformers(hub: FakeHub, tmp_path: Path):
    for verb in (("fetch",), ("seed", "--once")):
        found = loaded(*verb, REPO, "--endpoint", hub.url, "-q", cache=tmp_path / "hub")
        assert "libtorrent" in found
        assert not found & {"huggingface_hub", "torch", "transformers"}


# -- pipes and terminals -----------------------------------------------------------------------------------------


def test_a_closed_pipe_gives_no_traceback(nodes: Nodes, hub: FakeHub):
    nodes.ok("node", "fetch", REPO, "--endpoint", hub.url)
    torrent = nodes.root / "m.torrent"
    for args in (
        ("--help",),
        ("fetch", REPO, "--endpoint", hub.url, "-q"),
        ("verify", REPO, "-q", "--json"),
        ("torrent", "create", REPO, "-q", "-o", str(torrent)),
        ("torrent", "show", str(torrent)),
        ("mirror", "serve", "--listen", "127.0.0.1:0", "--json", "-q"),
    ):
        read, write = os.pipe()
        os.close(read)
        try:
            done = subprocess.run(
                [*P2PMODEL, *args],
                check=False,
                env=environment(nodes.cache("node")),
                stdout=write,
                stderr=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
            )
        finally:
            os.close(write)
        assert (done.returncode, done.stderr) == (1, ""), args
    nodes.ok("node", "verify", REPO)


class Terminal:
    """stderr of a command, on a pseudo terminal."""

    def __init__(self, cache: Path, *args: str) -> None:
        self.shown = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [*P2PMODEL, *args],
            env=environment(cache, TERM="xterm", COLUMNS="120"),
            stdout=subprocess.PIPE,
            stderr=slave,
            text=True,
        )
        os.close(slave)

    def until(self, words: str) -> None:
        """Wait until the terminal has shown the text `words`, or the command has ended."""
        while words not in self.shown and self._read():
            pass

    def end(self) -> tuple[int, str]:
        """Wait for the end: exit code and stdout."""
        while self._read():
            pass
        os.close(self._master)
        out, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out

    def _read(self) -> bool:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # the last writer has closed it
            return False
        self.shown += data.decode(errors="replace")
        return bool(data)


def test_on_a_terminal_the_result_is_on_stdout_and_the_cursor_is_restored(nodes: Nodes, tmp_path: Path):
    source = tmp_path / "source"
    for name, data in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    endpoint, _ = nodes.hub(source, "slow:200000@*.safetensors")
    fetch = ("fetch", REPO, "--endpoint", endpoint)
    stopped = Terminal(nodes.cache("node"), *fetch)
    stopped.until("mirroring")
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.end() == (130, "")
    assert "p2pmodel: interrupted; what was verified is kept: the same command resumes" in stopped.shown
    whole = Terminal(nodes.cache("node"), *fetch)
    code, out = whole.end()
    assert code == 0
    assert Path(out.strip()).is_dir()
    assert out.strip() not in whole.shown
    for terminal in (stopped, whole):
        assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") > 0
