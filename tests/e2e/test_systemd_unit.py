"""The systemd units in the package: systemd understands every line of them."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tests.support.eventually import PATIENCE

UNITS = {
    file.name: file.read_text(encoding="utf-8") for file in files("p2pmodel").joinpath("deploy", "systemd").iterdir()
}


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", sorted(UNITS))
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    text = UNITS[name].replace("/usr/local/bin/p2pmodel", sys.executable).replace("User=p2pmodel", "User=root")
    copy = tmp_path / name.replace("@", "@instance")
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", copy], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert [line for line in done.stderr.splitlines() if copy.name in line] == [], done.stderr


@pytest.mark.needs("systemd-analyze")
@pytest.mark.parametrize("name", sorted(UNITS))
def test_it_is_well_confined(name: str, tmp_path: Path) -> None:
    copy = tmp_path / name.replace("@", "@instance")
    copy.write_text(UNITS[name])
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
