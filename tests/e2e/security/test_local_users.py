"""Another user of the machine: refused over loopback without a token, admitted by an option."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Nodes

pytestmark = [
    pytest.mark.needs("setpriv", "curl"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process of another user"),
]

AS_ANOTHER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
DEAD = "http://127.0.0.1:9"
HINT = "--allow-local-users"


def ask(url: str, *options: str, prefix: tuple[str, ...] = AS_ANOTHER) -> tuple[int, str]:
    """The status and the body of a request by another user; status 0 without a connection."""
    command = [*prefix, "curl", "-sSi", "-w", "\n%{http_code}", "-m", str(PATIENCE), *options, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def start(nodes: Nodes, node: str, *options: str) -> dict[str, str]:
    """The addresses of a daemon and of a mirror of `node`."""
    where = ("--control-listen", "127.0.0.1:0", "--hub-listen", "127.0.0.1:0", "--endpoint", DEAD, "--json", "-q")
    found = nodes.start(node, "daemon", *where, *options).ready()
    mirror, _ = nodes.mirror(*options, node=node, log=f"{node}.log")
    return {
        "control": f"{found['url']}/api/v1/node",
        "page": f"{found['url']}/",
        "hub": f"{found['hub']}/api/models/org/model",
        "mirror": f"{mirror}/api/models/org/model",
        "socket": found["socket"],
    }


def test_only_the_own_user_is_admitted_unless_all_are(nodes: Nodes) -> None:
    closed = start(nodes, "closed")
    assert Path(closed.pop("socket")).stat().st_mode & 0o777 == 0o600
    for name, url in closed.items():
        status, answer = ask(url)
        assert (status, HINT in answer) == (403, True), name
        assert "X-Error-Message: this server admits only its own user" in answer, "clients of the hub show this line"
        assert ask(url, prefix=())[0] in (200, 404, 503), name
    status, answer = ask(closed["control"].replace("node", "transfers"), "--json", '{"ref": "org/model"}')
    assert (status, HINT in answer) == (403, True)
    opened = start(nodes, "open", HINT)
    del opened["socket"]
    for name, url in opened.items():
        assert ask(url)[0] in (200, 404, 503), name
