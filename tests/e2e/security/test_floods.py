"""Idle connections of one address: every server goes on serving other addresses, and its log stays short."""

import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.processes import P2PMODEL, PATIENCE, Nodes, Running, environment

IDLE = 600
FILES = 512
"""Open files of a server: fewer than the idle connections."""
REPO = "org/model"


def start(nodes: Nodes, stack: ExitStack, node: str, *args: str | Path) -> Running:
    """Start a command with FILES open files at most."""
    limited = ["prlimit", f"--nofile={FILES}:{FILES}", *P2PMODEL, *map(str, args)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(limited, env=environment(nodes.cache(node)), text=True, **pipes)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return Running(process)


def mirror(nodes: Nodes, stack: ExitStack, tmp_path: Path) -> tuple[Running, str]:
    nodes.cache("mirror").mkdir(parents=True)
    running = start(nodes, stack, "mirror", "mirror", "serve", "--listen", "127.0.0.8:0", "--json")
    return running, f"{running.ready()['endpoint']}/sync-log"


def coordinator(nodes: Nodes, stack: ExitStack, tmp_path: Path) -> tuple[Running, str]:
    running = start(nodes, stack, "coordinator", "coordinator", "--listen", "127.0.0.8:0", "--json")
    return running, f"{running.ready()['url']}/catalog"


def seed(nodes: Nodes, stack: ExitStack, tmp_path: Path) -> tuple[Running, str]:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    where = ("--listen", "127.0.0.8:0", "--swarm-listen", "127.0.0.8:0", "--json")
    running = start(nodes, stack, "seeder", "seed", source, "--as", REPO, *where)
    return running, f"{running.ready()['coordinator']}/catalog"


Server = Callable[[Nodes, ExitStack, Path], tuple[Running, str]]


@pytest.mark.needs("prlimit")
@pytest.mark.parametrize("server", [mirror, coordinator, seed])
def test_idle_connections_of_one_address_do_not_stop_a_server(nodes: Nodes, tmp_path: Path, server: Server) -> None:
    with ExitStack() as stack:
        running, url = server(nodes, stack, tmp_path)
        where = urlsplit(url)
        assert where.hostname is not None
        assert where.port is not None
        idle = [
            stack.enter_context(socket.create_connection((where.hostname, where.port), PATIENCE, ("127.0.0.66", 0)))
            for _ in range(IDLE)
        ]
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            assert answer.status == 200
        refusal = idle[-1].recv(4096)
        assert refusal == b"" or json.loads(refusal.partition(b"\r\n\r\n")[2])["code"] == "too_many_connections"
        logged = running.stop().err
        assert logged.count("connections refused") == 1
        assert len(logged.splitlines()) < 10
