"""The prolog for Slurm in the package: as slurmd starts it, without HOME and with a bare PATH."""

import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from tests.support.hub_layout import write_snapshot
from tests.support.stored import CONTENTS

ROOT = Path(__file__).parents[3]


@dataclass
class Prolog:
    """Runs the prolog with settings for a cache below `folder`."""

    folder: Path

    @property
    def hub(self) -> Path:
        return self.folder / "hub"

    def run(self, *lines: str) -> subprocess.CompletedProcess[str]:
        settings = self.folder / "settings"
        command = f"COMMAND='{sys.executable} -m p2pmodel'"
        known = [f"CACHE={self.hub}", "MODELS=org/model", command, f"export PYTHONPATH={ROOT}", "SECONDS_EACH=120"]
        settings.write_text("\n".join([*known, *lines]))
        script = files("p2pmodel").joinpath("deploy", "slurm", "p2pmodel.prolog")
        environment = {"SLURM_JOB_ID": "1", "SLURMD_NODENAME": "gpu001", "PATH": "/usr/bin:/bin"}
        with as_file(script) as path:
            return subprocess.run(
                ["sh", path],
                check=False,
                env=environment | {"PROLOG_SETTINGS": str(settings)},
                capture_output=True,
                text=True,
                timeout=300,
            )


@pytest.fixture
def prolog(tmp_path: Path) -> Prolog:
    (tmp_path / "hub").mkdir()
    return Prolog(tmp_path)


def test_it_is_silent_where_the_model_is_there(prolog: Prolog) -> None:
    write_snapshot(prolog.hub, "org/model", CONTENTS)
    done = prolog.run("DRAIN=yes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_says_what_is_missing_and_drains_only_where_that_is_asked_for(prolog: Prolog) -> None:
    manifest = write_snapshot(prolog.hub, "org/model", CONTENTS)
    (prolog.hub / "models--org--model/blobs" / manifest.files[0].etag).unlink()
    done = prolog.run("MODELS='org/model org/other'")
    assert (done.returncode, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert "org/model: p2pmodel: 1 file missing of 4" in first
    assert f"'p2pmodel fetch org/model@{manifest.commit}'" in first
    assert "org/other@main is not in the cache" in second
    assert prolog.run("DRAIN=yes").returncode == 1


def test_a_look_that_does_not_end_is_a_fault(prolog: Prolog) -> None:
    slow = prolog.folder / "slow"
    slow.write_text("#!/bin/sh\nsleep 600\n")
    slow.chmod(0o755)
    done = prolog.run(f"COMMAND={slow}", "SECONDS_EACH=1")
    assert done.returncode == 0
    assert "org/model: no answer within 1 s" in done.stderr
