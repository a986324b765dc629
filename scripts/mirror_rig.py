"""A rig of mirrors behind links of given rates, and a client that reaches them all."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

P2PMODEL = [sys.executable, "-m", "p2pmodel"]
_BURST = 128 << 10


class Rig:
    """`urls`: the mirrors' endpoints; all serve the hub cache `cache`, each at its rate in bytes a second.

    As root the links are real: network namespaces joined by veth pairs, `tc tbf` on each mirror's end. Otherwise the
    mirrors cap themselves, on loopback.
    """

    def __init__(self, cache: Path, rates: Sequence[float], stack: ExitStack) -> None:
        self.real = os.geteuid() == 0 and bool(shutil.which("ip")) and bool(shutil.which("tc"))
        self._tag = f"p2pm{os.getpid()}"
        self._client = f"{self._tag}c"
        if self.real:
            self._namespace(self._client, stack)
        self.urls = [self._mirror(number, rate, cache, stack) for number, rate in enumerate(rates, 1)]

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command` as the client runs it."""
        return [*(["ip", "netns", "exec", self._client] if self.real else []), *command]

    def distant(self, number: int, delay: float, stack: ExitStack) -> str:
        """Another endpoint of mirror `number`, from 1, which lies `delay` seconds away, each way."""
        address = self.urls[number - 1].partition("://")[2]
        listen = address.rpartition(":")[0] + (":8091" if self.real else ":0")
        proxy = ["-m", "scripts.delay_proxy", "--listen", listen, "--to", address, "--delay", str(delay)]
        where = ["ip", "netns", "exec", f"{self._tag}m{number}"] if self.real else []
        return _started([*where, sys.executable, *proxy], stack)

    def _namespace(self, name: str, stack: ExitStack) -> None:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "delete", name)
        _ip("-n", name, "link", "set", "lo", "up")

    def _mirror(self, number: int, rate: float, cache: Path, stack: ExitStack) -> str:
        serve = ["mirror", "serve", "--cache-dir", str(cache), "--insecure-public", "--json", "-q", "--listen"]
        if not self.real:
            capped = [*P2PMODEL, *serve, f"127.0.0.{1 + number}:0", "--max-bytes-per-second", str(int(rate))]
            return _started(capped, stack)
        name, net = f"{self._tag}m{number}", f"10.77.{number}"
        self._namespace(name, stack)
        _ip("link", "add", f"m{number}", "netns", self._client, "type", "veth", "peer", "name", "link0", "netns", name)
        for where, device, host in ((self._client, f"m{number}", 1), (name, "link0", 2)):
            _ip("-n", where, "address", "add", f"{net}.{host}/24", "dev", device)
            _ip("-n", where, "link", "set", device, "up")
        shape = ["rate", f"{int(rate * 8)}bit", "burst", str(_BURST), "latency", "50ms"]
        subprocess.run(["tc", "-n", name, "qdisc", "add", "dev", "link0", "root", "tbf", *shape], check=True)
        return _started(["ip", "netns", "exec", name, *P2PMODEL, *serve, f"{net}.2:8090"], stack)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _started(command: list[str], stack: ExitStack) -> str:
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    assert process.stdout is not None
    stack.callback(process.stdout.close)
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(command)} ended with exit code {process.wait()}")
    return str(json.loads(line)["endpoint"])
