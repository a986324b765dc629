"""Hosts of a cluster on one machine: a network namespace, a host name, a home and a real ssh server for each.

The launcher and the mirror are in namespaces of their own. Names lead to addresses by /etc/netns/NAME/hosts.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from scripts.bench.rigs import namespaces
from tests.support.eventually import PATIENCE
from tests.support.processes import Finished, Running
from tests.support.ssh_hosts import CONFIGURATION, ROOT, SSHD, host_environment, make_key

_tags = count()
OTHERS = {"launcher": 100, "mirror": 101}
"""Machines beside the hosts, with the last part of their addresses."""
SYSTEMD = "/lib/systemd/systemd"


def unavailable() -> str:
    """The reason why this machine cannot have the rig; "" if it can."""
    return namespaces.unavailable() or ("" if shutil.which(SSHD) else "it needs sshd (Debian: openssh-server)")


class ClusterRig:
    """`hosts` machines gpu001.. below `folder`. Everything ends with `stack`."""

    def __init__(self, folder: Path, hosts: int, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.tag = f"p2pl{os.getpid()}x{next(_tags)}"
        self.names = [f"gpu{number:03d}" for number in range(1, hosts + 1)]
        folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        self.key = make_key(folder / "id")
        self.known_hosts = folder / "known_hosts"
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        namespaces.add_namespace(self.tag, stack)
        namespaces.ip("-n", self.tag, "link", "add", "br0", "type", "bridge")
        namespaces.ip("-n", self.tag, "link", "set", "dev", "br0", "up")
        for name, number in OTHERS.items():
            self._machine(name, number)
        for name in self.names:
            self._machine(name, int(name[3:]))
            self.home(name).mkdir(parents=True)
            (folder / name / "hf").mkdir()
            make_key(folder / name / "hostkey")
        self.trust(*self.names)
        self.config = folder / "ssh_config"
        self.config.write_text(
            f"Host *\n  User root\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
        )
        stack.callback(self._silence)
        for name in self.names:
            self.boot(name)

    def address(self, name: str) -> str:
        """The address of a machine."""
        return f"10.77.0.{OTHERS.get(name) or int(name[3:])}"

    def home(self, name: str) -> Path:
        """The home directory of a host."""
        return self.folder / name / "home"

    def trust(self, *names: str) -> None:
        """Write the keys of all hosts to known_hosts; those of `names` are the right ones."""
        lines = []
        for name in self.names:
            right = name in names
            key = self.folder / name / "hostkey.pub" if right else make_key(self.folder / "other").with_suffix(".pub")
            lines.append(f"{name},{self.address(name)} {' '.join(key.read_text().split()[:2])}\n")
        self.known_hosts.write_text("".join(lines))

    def boot(self, name: str, *, cache_bytes: int = 0, systemd: bool = False) -> None:
        """Start the host's ssh server; `cache_bytes`: the size of its disk for the cache; `systemd`: its user's service
        manager, too."""
        folder = self.folder / name
        environment = {**host_environment(self.home(name)), "HF_HOME": str(folder / "hf")}
        runtime = folder / "run"
        if systemd:
            runtime.mkdir(mode=0o700)
            environment["XDG_RUNTIME_DIR"] = str(runtime)
        text = CONFIGURATION.format(
            port=22,
            address=self.address(name),
            folder=folder,
            authorized=self.key.with_suffix(".pub"),
            startups="100:30:200",
            environment=" ".join(f'"{key}={value}"' for key, value in environment.items()),
        )
        (folder / "sshd_config").write_text(text)
        disk = f"mount -t tmpfs -o size={cache_bytes} none {folder}/hf;" if cache_bytes else ""
        manager = (
            "mount -t cgroup2 none /sys/fs/cgroup; mount -t tmpfs none /run/systemd; mkdir /run/systemd/system;"
            f"unset DBUS_SESSION_BUS_ADDRESS; HOME={self.home(name)} XDG_RUNTIME_DIR={runtime} "
            f"{SYSTEMD} --user >{folder}/systemd.log 2>&1 &"
        )
        server = f"exec {SSHD} -D -f {folder}/sshd_config -E {folder}/sshd.log"
        script = f"hostname {name}; {disk} {manager if systemd else ''} {server}"
        command = namespaces.inside(f"{self.tag}-{name}", ["unshare", "--mount", "--uts", "sh", "-c", script])
        self._servers[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not (folder / "sshd.pid").exists():
            assert time.monotonic() < deadline, (folder / "sshd.log").read_text()
            time.sleep(0.02)

    def settings(self, name: str, text: str) -> None:
        """Give a host a settings file of its own."""
        file = self.home(name) / ".config/p2pmodel/p2pmodel.toml"
        file.parent.mkdir(parents=True)
        file.write_text(text)

    def crash(self, name: str) -> None:
        """End everything that runs on a host."""
        listed = subprocess.run(
            ["ip", "netns", "pids", f"{self.tag}-{name}"], check=True, capture_output=True, text=True
        )
        for pid in map(int, listed.stdout.split()):
            os.kill(pid, signal.SIGKILL)
        if server := self._servers.pop(name, None):
            server.wait()
        (self.folder / name / "sshd.pid").unlink(missing_ok=True)

    def processes(self, name: str) -> list[int]:
        """What runs on a machine."""
        command = ["ip", "netns", "pids", f"{self.tag}-{name}"]
        listed = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        return list(map(int, listed.split()))

    def service(self, name: str, service: str) -> int:
        """The process of a service that a launcher has started on a host."""
        folder = self.home(name) / ".local/state/p2pmodel/services" / service
        return int((folder / "pid").read_text().split()[0])

    def shape(self, name: str, rate: float) -> None:
        """Limit what a machine receives and sends to `rate` bytes/s; 0: no limit."""
        for namespace, device in ((f"{self.tag}-{name}", "eth0"), (self.tag, name)):
            subprocess.run(
                ["tc", "-n", namespace, "qdisc", "del", "dev", device, "root"], check=False, stderr=subprocess.DEVNULL
            )
            if rate:
                namespaces.shape(namespace, device, rate)

    def start(self, name: str, command: Sequence[str | Path], **environment: str) -> Running:
        """Start a command on a machine."""
        home = self.folder / "launcher"
        home.mkdir(exist_ok=True)
        process = subprocess.Popen(
            namespaces.inside(f"{self.tag}-{name}", list(map(str, command))),
            env={**host_environment(home), **environment},
            cwd=home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._stack.callback(_end, process)
        return Running(process)

    def hub(self, directory: Path, repo: str = "org/model") -> tuple[str, Path]:
        """Serve a directory as a hub on a machine of its own; its endpoint and the log of its requests."""
        log = self.folder / "hub.log"
        module = [sys.executable, "-m", "tests.support.fake_hub", "--host", self.address("mirror")]
        options = ["--dir", directory, "--repo", repo, "--log", log]
        return str(self.start("mirror", [*module, *options], PYTHONPATH=str(ROOT)).ready()["url"]), log

    def bootstrap(self, *options: str | Path) -> Running:
        """Start `p2pmodel bootstrap org/model` on the launcher's machine."""
        command = [sys.executable, "-m", "p2pmodel", "bootstrap", "org/model", "--ssh-config", self.config]
        python = f"{sys.executable} -m p2pmodel"
        return self.start("launcher", [*command, "--command", python, "--json", "--progress", "plain", *options])

    def _machine(self, name: str, number: int) -> None:
        namespace = f"{self.tag}-{name}"
        folder = Path("/etc/netns") / namespace
        folder.mkdir(parents=True)
        self._stack.callback(shutil.rmtree, folder, True)
        entries = [f"{self.address(each)} {each}\n" for each in self.names]
        (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(entries))
        namespaces.add_namespace(namespace, self._stack)
        namespaces.join(namespace, "eth0", self.tag, name)
        namespaces.ip("-n", self.tag, "link", "set", "dev", name, "master", "br0", "up")
        namespaces.ip("-n", namespace, "addr", "add", f"10.77.0.{number}/24", "dev", "eth0")
        namespaces.ip("-n", namespace, "link", "set", "dev", "eth0", "up")

    def _silence(self) -> None:
        for name in (*OTHERS, *self.names):
            for pid in self.processes(name):
                os.kill(pid, signal.SIGKILL)
        for server in self._servers.values():
            server.wait()


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


__all__ = ["ClusterRig", "Finished", "unavailable"]
