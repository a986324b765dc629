"""The scripts for services on a host, run by the shell of this machine."""

import os
import subprocess
from pathlib import Path

import pytest

from p2pmodel.cluster import scripted_host as scripts
from p2pmodel.cluster.launcher import ServiceSpec
from tests.support.processes import PATIENCE, eventually


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_all_processes_of_a_service_may_end_by_themselves(tmp_path: Path) -> None:
    # A shell command starts the engine as a child, and ends at once when it is told to: the engine needs a moment.
    engine = tmp_path / "engine"
    engine.write_text(
        f"trap 'sleep 0.3; echo ended >{tmp_path}/log; exit' TERM\necho >{tmp_path}/up\nwhile :; do sleep 0.05; done\n"
    )
    service = ServiceSpec("serve", ("sh", "-c", f"sh {engine} & wait"))
    assert run(scripts.start(str(tmp_path), service)).returncode == scripts.STARTED
    eventually((tmp_path / "up").exists, PATIENCE)
    assert run(scripts.stop(str(tmp_path), "serve")).returncode == 0
    assert (tmp_path / "log").read_text() == "ended\n"
    assert run(scripts.state(str(tmp_path), "serve")).returncode == scripts.ABSENT


def named(folder: Path) -> list[str]:
    looked = run(scripts.LOOK, P2PMODEL_STATE_DIR=str(folder), HOME=str(folder))
    assert looked.returncode == 0
    return [line for line in looked.stdout.splitlines() if line.startswith("service")]


def test_a_look_names_the_services_that_run(tmp_path: Path) -> None:
    for name, command in (("daemon", "sleep 60"), ("seed", "true")):
        assert run(scripts.start(str(tmp_path), ServiceSpec(name, tuple(command.split())))).returncode == 0
    try:
        # One that has ended, and that nothing has reaped yet, runs no more.
        eventually(lambda: named(tmp_path) == ["service daemon"], PATIENCE)
    finally:
        assert run(scripts.stop(str(tmp_path), "daemon")).returncode == 0


@pytest.mark.parametrize(("xdg", "state"), [("relative", "{home}/.local/state/p2pmodel"), ("/xdg", "/xdg/p2pmodel")])
def test_a_relative_xdg_folder_is_ignored_as_by_the_program_itself(tmp_path: Path, xdg: str, state: str) -> None:
    folder = state.format(home=tmp_path)
    looked = run(scripts.LOOK, HOME=str(tmp_path), XDG_STATE_HOME=xdg, XDG_RUNTIME_DIR="relative")
    assert looked.stdout.splitlines()[:2] == [f"state {folder}", f"socket {folder}/p2pmodel.sock"]
