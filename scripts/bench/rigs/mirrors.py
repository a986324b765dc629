"""A rig of mirrors behind links of given rates, and a client that reaches them all."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.bench.rigs import namespaces
from scripts.bench.rigs.machine import P2PMODEL


class Rig:
    """`urls`: the mirrors' endpoints; all serve the hub cache `cache`, each at its rate in bytes a second.

    As root the links are real: network namespaces joined by veth pairs, `tc tbf` on each mirror's end. Otherwise the
    mirrors cap themselves, on loopback.
    """

    def __init__(self, cache: Path, rates: Sequence[float], stack: ExitStack) -> None:
        self.real = not namespaces.lacking()
        self._tag = f"p2pm{os.getpid()}"
        self._client = f"{self._tag}c"
        if self.real:
            namespaces.add_namespace(self._client, stack)
        self.urls = [self._mirror(number, rate, cache, stack) for number, rate in enumerate(rates, 1)]

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command` as the client runs it."""
        return namespaces.inside(self._client, command) if self.real else [*command]

    def distant(self, number: int, delay: float, stack: ExitStack) -> str:
        """Another endpoint of mirror `number`, from 1, which lies `delay` seconds away, each way."""
        address = self.urls[number - 1].partition("://")[2]
        listen = address.rpartition(":")[0] + (":8091" if self.real else ":0")
        module = ["-m", "scripts.bench.rigs.delay_proxy", "--listen", listen, "--to", address, "--delay", str(delay)]
        proxy = [sys.executable, *module]
        return _started(namespaces.inside(f"{self._tag}m{number}", proxy) if self.real else proxy, stack)

    def _mirror(self, number: int, rate: float, cache: Path, stack: ExitStack) -> str:
        serve = ["mirror", "serve", "--cache-dir", str(cache), "--insecure-public", "--json", "-q", "--listen"]
        if not self.real:
            capped = [*P2PMODEL, *serve, f"127.0.0.{1 + number}:0", "--max-bytes-per-second", str(int(rate))]
            return _started(capped, stack)
        name, net = f"{self._tag}m{number}", f"10.77.{number}"
        namespaces.add_namespace(name, stack)
        namespaces.join(self._client, f"m{number}", name, "link0")
        for where, device, host in ((self._client, f"m{number}", 1), (name, "link0", 2)):
            namespaces.ip("-n", where, "address", "add", f"{net}.{host}/24", "dev", device)
            namespaces.ip("-n", where, "link", "set", device, "up")
        namespaces.shape(name, "link0", rate)
        return _started(namespaces.inside(name, [*P2PMODEL, *serve, f"{net}.2:8090"]), stack)


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
