"""Messages to systemd: they are sent, and without a supervisor no call fails."""

import socket
from pathlib import Path

import pytest

from p2pmodel.service.roles.daemon import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_a_message_is_received(tmp_path: Path, abstract: bool):
    address = f"@{tmp_path.name}" if abstract else str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind("\0" + address[1:] if abstract else address)
        line.settimeout(5)
        notify("READY=1", {"NOTIFY_SOCKET": address})
        assert line.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/x"}, {"NOTIFY_SOCKET": "x"}]
)
def test_without_a_supervisor_no_call_fails(environ: dict[str, str]):
    notify("READY=1", environ)
