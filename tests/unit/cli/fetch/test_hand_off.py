"""`fetch --print-serve` and `--exec` with a cache and without a network: output, and refused options."""

import asyncio
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pmodel.cli.fetch.fetch import fetch
from p2pmodel.cli.fetch.hand_off import EngineCommand, environment_of
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.errors import InvalidInput, LocalResource, P2PModelError
from p2pmodel.store.cache import HubCache
from tests.support.hub_snapshot import snapshot_of
from tests.support.stored import publish

CONFIG = {"architectures": ["A"], "model_type": "a", "dtype": "bfloat16", "num_attention_heads": 8}


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"HF_HUB_CACHE": tmp_path / "hub", "HF_HUB_OFFLINE": 1, "HOME": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # whatever GPUs this machine has
    monkeypatch.chdir(tmp_path)
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": bytes(1000), "m.gguf": b"GGUF"}
    cache, whole = HubCache(tmp_path / "hub"), snapshot_of(files)
    publish(cache, whole)
    return cache.repo(whole.manifest.repo).snapshot(whole.commit)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(fetch, ["org/model", *arguments], standalone_mode=False, catch_exceptions=False)


def test_the_command_is_printed_in_place_of_the_path(snapshot: Path) -> None:
    done = invoke("--print-serve", "vllm")
    [line] = done.stdout.splitlines()
    served = ["vllm", "serve", str(snapshot), "--served-model-name", "org/model", "--dtype", "bfloat16"]
    assert shlex.split(line) == ["HF_HUB_OFFLINE=1", *served]
    assert str(snapshot) in done.stderr.splitlines()
    assert "no GPU is seen here; where several serve 1.0 kB of weights, add --tensor-parallel-size N" in done.stderr


def test_the_command_in_json(snapshot: Path) -> None:
    plain = json.loads(invoke("--print-serve", "sglang", "--json").stdout)
    assert plain["path"] == str(snapshot)
    assert plain["serve"]["command"][:5] == ["python", "-m", "sglang.launch_server", "--model-path", str(snapshot)]
    assert plain["serve"]["environment"] == {"HF_HUB_OFFLINE": "1"}


def test_a_file_that_is_named_is_the_model_of_llama_cpp(snapshot: Path) -> None:
    done = invoke("m.gguf", "--print-serve", "llama.cpp", "-q")
    assert shlex.split(done.stdout) == ["llama-server", "--model", f"{snapshot}/m.gguf", "--alias", "org/model"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--exec", "no-such-engine {path}"), "there is no program no-such-engine"),
        (("--exec", "true", "--load"), "--exec and --load were given; they exclude each other"),
        (("--print-serve", "vllm", "--prompt", "hi"), "--print-serve and --load were given"),
        (("--exec", "true", "--print-serve", "vllm"), "--exec and --print-serve were given"),
        (("--exec", "true", "--server", "http://127.0.0.1:9"), "with --server the files stay on that machine"),
        (("config.json", "--print-serve", "vllm"), None),
    ],
)
def test_options_that_do_not_go_together(snapshot: Path, options: tuple[str, ...], says: str | None) -> None:
    with pytest.raises(InvalidInput if says else P2PModelError) as refused:
        invoke(*options)
    assert (says or "is not the folder of a model") in str(refused.value)


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
