"""The unit that starts the daemon: systemd understands every line of it, and the settings in it exist."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from p2pmodel.config.sources import load_settings

UNIT = Path(__file__).parents[2] / "scripts" / "deploy" / "p2pmodel.service"


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_it(tmp_path: Path) -> None:
    text = UNIT.read_text().replace("/usr/local/bin/p2pmodel", sys.executable).replace("User=p2pmodel", "User=root")
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", copy], check=False, capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if UNIT.name in line] == [], done.stderr


def test_its_environment_is_what_the_settings_read() -> None:
    env = dict(re.findall(r"^Environment=(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    with patch.dict(os.environ, env | {"HOME": "/nowhere"}, clear=True):
        settings = load_settings()
    assert str(settings.cache_dir) == env["HF_HUB_CACHE"]
    assert str(settings.state_dir) == env["P2PMODEL_STATE_DIR"]
    assert str(settings.daemon.socket) == env["P2PMODEL_DAEMON_SOCKET"]
