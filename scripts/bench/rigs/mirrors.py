"""Mirrors behind links of given rates, and a client that reaches them all."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.bench.rigs import namespaces
from scripts.bench.rigs.cluster import Cluster, Host, Link
from scripts.bench.rigs.machine import P2PMODEL
from scripts.bench.rigs.programs import Program

PORT, DISTANT_PORT = 8090, 8091


class MirrorRig:
    """`urls`: the mirrors' endpoints. All serve the hub cache `cache`, each at its rate in bytes per second.

    As root the links are real: one host of a cluster for each mirror, and one without a limit for the client. Otherwise
    the mirrors limit themselves, on loopback. Logs go to `place`.
    """

    def __init__(self, cache: Path, rates: Sequence[float], place: Path, stack: ExitStack) -> None:
        self._place = place
        self._stack = stack
        self._hosts: list[Host] = []
        self._client: Host | None = None
        if not namespaces.unavailable():
            cluster = Cluster(stack)
            self._hosts = [cluster.host(f"mirror{n}", Link(rate, rate)) for n, rate in enumerate(rates, 1)]
            self._client = cluster.host("client", None)
        self.urls = [self._mirror(number, rate, cache) for number, rate in enumerate(rates, 1)]

    @property
    def real(self) -> bool:
        """Whether the links are real."""
        return self._client is not None

    def inside(self, command: Sequence[str]) -> list[str]:
        """`command` as the client runs it."""
        return self._client.inside(command) if self._client else [*command]

    def distant(self, number: int, delay: float) -> str:
        """Another endpoint of mirror `number` (from 1), at a distance of `delay` seconds each way."""
        address = self.urls[number - 1].partition("://")[2]
        listen = f"{address.rpartition(':')[0]}:{DISTANT_PORT if self.real else 0}"
        proxy = [sys.executable, "-m", "scripts.bench.rigs.delay_proxy", "--listen", listen]
        return self._start(number, "distant", [*proxy, "--to", address, "--delay", str(delay)])

    def _mirror(self, number: int, rate: float, cache: Path) -> str:
        serve = [*P2PMODEL, "mirror", "serve", "--cache-dir", str(cache), "--insecure-public", "--json", "-q"]
        if self.real:
            serve += ["--listen", f"{self._hosts[number - 1].address}:{PORT}"]
        else:
            serve += ["--listen", f"127.0.0.{1 + number}:0", "--max-bytes-per-second", str(int(rate))]
        return self._start(number, "mirror", serve)

    def _start(self, number: int, name: str, command: list[str]) -> str:
        placed = self._hosts[number - 1].inside(command) if self.real else command
        program = Program(placed, self._stack, log=self._place / f"{name}{number}.log")
        return str(program.first()["endpoint"])
