"""Real ssh servers on 127.0.0.x as hosts of a cluster, and the ssh configuration that leads to them."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.eventually import PATIENCE
from tests.support.no_mirror import NO_MIRROR

SSHD = "/usr/sbin/sshd"
ROOT = Path(__file__).parents[2]

CONFIGURATION = """\
Port {port}
ListenAddress {address}
HostKey {folder}/hostkey
PidFile {folder}/sshd.pid
AuthorizedKeysFile {authorized}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin yes
MaxStartups {startups}
SetEnv {environment}
Subsystem sftp internal-sftp
"""


@dataclass
class SshHosts:
    """Hosts below `folder`: `add` starts one. `config` is the user's ssh configuration for all of them."""

    folder: Path
    ports: dict[str, int] = field(default_factory=dict)
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        self.key = make_key(self.folder / "id")
        self.config = self.folder / "ssh_config"
        self.known_hosts = self.folder / "known_hosts"
        self.known_hosts.touch()
        self._write()

    def home(self, name: str) -> Path:
        """The home directory of `name`."""
        return self.folder / name / "home"

    def add(self, name: str, *, address: str = "127.0.0.21", known: bool = True, startups: str = "10:30:100") -> None:
        """Start the ssh server of a host; `known`: its key is in known_hosts."""
        folder = self.folder / name
        self.home(name).mkdir(parents=True)
        key = make_key(folder / "hostkey")
        port = self.ports[name] = free_port(address)
        if known:
            self.trust(name, address, port, key.with_suffix(".pub"))
        self.serve(name, address, startups)
        self._write()

    def serve(self, name: str, address: str = "127.0.0.21", startups: str = "10:30:100") -> None:
        """Start the server of a host that was added, again."""
        folder = self.folder / name
        environment = host_environment(self.home(name))
        text = CONFIGURATION.format(
            port=self.ports[name],
            address=address,
            folder=folder,
            authorized=self.key.with_suffix(".pub"),
            startups=startups,
            environment=" ".join(f'"{key}={value}"' for key, value in environment.items()),
        )
        (folder / "sshd_config").write_text(text)
        command = [SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "sshd.log")]
        self._servers[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while True:
            with socket.socket() as probe:
                if probe.connect_ex((address, self.ports[name])) == 0:
                    return
            assert time.monotonic() < deadline, (folder / "sshd.log").read_text()
            time.sleep(0.02)

    def stop(self, name: str) -> None:
        """End the server of a host and its connections."""
        server = self._servers.pop(name)
        subprocess.run(["pkill", "-KILL", "-P", str(server.pid)], check=False)
        server.kill()
        server.wait()

    def trust(self, name: str, address: str, port: int, public: Path) -> None:
        """Put the public key into known_hosts."""
        kind, data = public.read_text().split()[:2]
        with self.known_hosts.open("a") as file:
            file.write(f"[{address}]:{port} {kind} {data}\n")

    def close(self) -> None:
        """End all servers."""
        for name in list(self._servers):
            self.stop(name)

    def _write(self) -> None:
        lines = [f"Host {name}\n  HostName 127.0.0.21\n  Port {port}\n" for name, port in self.ports.items()]
        lines.append(f"Host *\n  User root\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n")
        lines.append(f"  UserKnownHostsFile {self.known_hosts}\n")
        self.config.write_text("".join(lines))


def host_environment(home: Path) -> dict[str, str]:
    """The environment of commands on a host: this checkout's package, and no mirror."""
    folder = Path(sys.executable).parent
    paths = {"PATH": f"{folder}:{os.environ.get('PATH', '/usr/bin:/bin')}", "PYTHONPATH": str(ROOT)}
    return {"HOME": str(home), "HF_HOME": str(home / "hf"), **paths, **NO_MIRROR}


def make_key(path: Path) -> Path:
    """A new ed25519 key without a passphrase."""
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path


def free_port(address: str) -> int:
    """A port of `address` that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def ssh_hosts(tmp_path: Path) -> Iterator[SshHosts]:
    """Ssh servers that end with the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if shutil.which(SSHD) is None:
        missing = pytest.fail if os.environ.get("P2PMODEL_TEST_STRICT") == "1" else pytest.skip
        missing("needs the program sshd (Debian: openssh-server)")
    hosts = SshHosts(tmp_path / "ssh")
    yield hosts
    hosts.close()
