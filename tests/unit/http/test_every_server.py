"""No server of the package is without its guard, its connection limits and its log."""

import ast
import resource
from pathlib import Path

import p2pmodel
from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.http.limits import connections

ROOT = Path(p2pmodel.__file__).parent
NEEDED = {"serving": {"guard", "limits", "note"}, "serving_unix": {"limits", "note"}}
SITES = {"TCPSite", "UnixSite", "SockSite", "AppRunner", "ListeningRunner", "run_app", "create_server", "start_server"}


def calls(path: Path) -> list[tuple[str, set[str | None]]]:
    """The functions that the module at `path` calls by their own name or as an attribute, with keyword arguments."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", None) or getattr(node.func, "attr", "")
            found.append((name, {keyword.arg for keyword in node.keywords}))
    return found


def test_every_server_has_a_guard_limits_and_a_log() -> None:
    servers = 0
    for path in ROOT.rglob("*.py"):
        if path not in (ROOT / "http" / "server.py", ROOT / "http" / "runner.py"):
            imported = "p2pmodel.http.server import" in path.read_text()
            for name, given in calls(path):
                assert name not in SITES, f"{path}: {name} starts a server without serving()"
                if imported and name in NEEDED:
                    assert NEEDED[name] <= given, f"{path}: {name}() without {NEEDED[name] - given}"
                    servers += 1
    assert servers >= 6


def test_one_address_gets_a_quarter_of_the_connections_that_the_open_files_allow() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, before[1]))
        few = connections(HttpSettings())
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (few.most, few.most_each) == (100, 25)
    small = connections(HttpSettings(max_connections=2, max_connections_per_address=1))
    assert (small.most, small.most_each) == (2, 1)
