"""nginx in front of the coordinator, with the configuration of docs/cluster.md."""

import re
from contextlib import ExitStack
from pathlib import Path

from scripts.bench.rigs.programs import ROOT, Program
from scripts.soaking.network import Machine

PROXY_PORT = 8080
_GUIDE = ROOT / "docs/cluster.md"
_KINDS = ("proxy", "fastcgi", "uwsgi", "scgi")


class Proxy:
    """nginx on `machine`, for the server at `port` of its loopback. Its files are in `place`."""

    def __init__(self, machine: Machine, port: int, place: Path) -> None:
        self._machine = machine
        self._port = port
        self._folder = place / "nginx"

    def start(self, stack: ExitStack) -> Program:
        """Start it; it listens soon."""
        folder = self._folder
        folder.mkdir()
        found = re.search(r"```nginx\n(location /p2p/ .*?)```", _GUIDE.read_text(), re.DOTALL)
        assert found, f"{_GUIDE} has no location for nginx"
        location = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self._port}", found[1])
        temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in _KINDS)
        (folder / "nginx.conf").write_text(f"""daemon off; worker_processes 1; pid {folder}/pid; user root;
error_log {folder}/error;
events {{ worker_connections 512; }}
http {{ access_log off; client_body_temp_path {folder}/body; {temporary}
server {{ listen {self._machine.address}:{PROXY_PORT}; {location} }} }}
""")
        command = ["nginx", "-e", f"{folder}/error", "-c", f"{folder}/nginx.conf"]
        return Program(self._machine.inside(command), stack, log=folder.with_suffix(".log"))
