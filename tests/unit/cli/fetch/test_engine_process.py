"""The command of `fetch --exec`: its words, its environment, and the signals that a child gets."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from p2pmodel.cli.fetch.engine_process import EngineCommand, environment_of
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.errors import InvalidInput, LocalResource

SNAPSHOT = {"path": "/a b/{repo}", "repo": "org/model", "revision": "c0ffee"}


def python(code: str) -> EngineCommand:
    return EngineCommand((sys.executable, "-c", code))


def run(command: EngineCommand, **environment: str) -> int:
    work = command.run(SNAPSHOT, {**os.environ, **environment})
    return run_interruptible(work, interrupted="interrupted")


def test_only_the_names_of_the_snapshot_are_replaced_and_once() -> None:
    line = "sh -c 'echo {path} {\"image\": 4} {other} $HOME' {repo}@{revision}"
    assert EngineCommand.parse(line).filled(SNAPSHOT) == [
        *("sh", "-c", 'echo /a b/{repo} {"image": 4} {other} $HOME', "org/model@c0ffee")
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "the command is empty"),
        ("vllm 'serve", "no closing quotation; check the quotes"),
        ("no-such-program {path}", "there is no program no-such-program; check its name and PATH"),
    ],
)
def test_a_command_that_cannot_run_is_refused(line: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        EngineCommand.parse(line)


def test_the_environment_is_offline_and_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/home/hf")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("KEPT", "yes")
    found = environment_of(Path("/cache/snapshot"), Path("/cache"))
    assert {name: found[name] for name in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "P2PMODEL_PATH", "KEPT")} == {
        "HF_HOME": "/home/hf",
        "HF_HUB_CACHE": "/cache",
        "HF_HUB_OFFLINE": "1",
        "P2PMODEL_PATH": "/cache/snapshot",
        "KEPT": "yes",
    }


@pytest.mark.parametrize(
    ("code", "expected"), [("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_code_of_the_child(code: str, expected: int) -> None:
    assert run(python(code)) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_to_the_child_alone(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = tmp_path / "ready"
    monkeypatch.setattr(sys, "stdin", None)  # no terminal, whatever runs the tests
    code = (
        "import pathlib, signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(40))\n"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )

    async def scenario() -> int:
        running = asyncio.ensure_future(python(code).run(SNAPSHOT, os.environ))
        while not ready.exists():  # noqa: ASYNC110 - the child has no other way to say it
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), number)
        return await running

    assert run_interruptible(scenario(), interrupted="interrupted") == 40


def test_a_child_of_a_cancelled_caller_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"

    async def scenario() -> None:
        running = asyncio.ensure_future(python(code).run(SNAPSHOT, os.environ))
        while not (pid.exists() and pid.read_text()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    run_interruptible(scenario(), interrupted="interrupted")
    child = int(pid.read_text())
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_program_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\0")
    broken.chmod(0o755)
    with pytest.raises(LocalResource, match=r"cannot run .*broken: .*; the snapshot is complete"):
        run(EngineCommand((str(broken),)))
