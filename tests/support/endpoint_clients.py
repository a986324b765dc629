"""A daemon's hub endpoint, and real Hugging Face clients that are configured by HF_ENDPOINT alone."""

import sys
from pathlib import Path
from typing import Any

from tests.support.hub_clients import HubClient
from tests.support.processes import Nodes, Running

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
PYTHON = Path(sys.executable)

DOWNLOAD = """
import json, sys
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download(*sys.argv[1:])))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def daemon(
    nodes: Nodes, node: str, address: str, *options: str | Path, hub: str = "127.0.0.1:0", **env: str
) -> Running:
    where = ("--swarm-listen", f"{address}:0", "--hub-listen", hub, "--access-log", nodes.root / f"{node}.log")
    running = nodes.start(node, "daemon", *where, "--json", *options, **env)
    running.ready()
    return running


def tracker(nodes: Nodes) -> str:
    return str(nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json").ready()["url"])


def shared(nodes: Nodes, node: str, running: Running, python: Path = PYTHON) -> HubClient:
    """A client that has the daemon's cache."""
    return HubClient(python, nodes.root / node, str(running.ready()["hub"]))


def apart(nodes: Nodes, name: str, running: Running, python: Path = PYTHON) -> HubClient:
    """A client with a cache of its own."""
    home = nodes.root / name
    home.mkdir()
    return HubClient(python, home, str(running.ready()["hub"]))


def gets(log: list[dict[str, Any]]) -> list[str]:
    """Files that were requested with their bodies, not only headers."""
    return [r["path"] for r in log if r["method"] == "GET" and "/resolve/" in r["path"]]
