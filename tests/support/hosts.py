"""Nodes on hosts of their own: network namespaces with addresses that are really apart. Needs root."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.bench.rigs import namespaces
from tests.support.processes import Nodes

STRICT = os.environ.get("P2PMODEL_TEST_STRICT") == "1"
_rigs = itertools.count()


class Hosts(Nodes):
    """Each node runs on the host of its name. The networks are bridges.

    On the network `n` the host number `k` has the addresses 10.n.0.k and fdn::k.
    """

    def __init__(self, root: Path, stack: ExitStack) -> None:
        super().__init__(root, stack)
        self._switch = f"p2ph{os.getpid()}-{next(_rigs)}"
        self._networks: set[int] = set()
        namespaces.add_namespace(self._switch, stack)

    def add(self, host: str, number: int, *networks: int, four: bool = True, six: bool = True) -> None:
        """A host on `networks`, with addresses of the families that are wanted."""
        name = self.name(host)
        namespaces.add_namespace(name, self._stack)
        for network in networks:
            self._add_network(network)
            port, device = f"n{network}h{number}", f"eth{network}"
            namespaces.join(self._switch, port, name, device)
            namespaces.ip("-n", self._switch, "link", "set", "dev", port, "master", f"bridge{network}", "up")
            if four:
                namespaces.ip("-n", name, "address", "add", f"10.{network}.0.{number}/24", "dev", device)
            if six:
                namespaces.ip("-n", name, "address", "add", f"fd{network}::{number}/64", "dev", device, "nodad")
            namespaces.ip("-n", name, "link", "set", "dev", device, "up")

    def name(self, host: str) -> str:
        """The namespace of `host`."""
        return f"{self._switch}-{host}"

    def inside(self, node: str, command: list[str]) -> list[str]:
        return namespaces.inside(self.name(node), command)

    def on_exit(self, process: subprocess.Popen[bytes]) -> None:
        """End `process` with the test."""
        self._stack.callback(process.wait)
        self._stack.callback(process.terminate)

    def firewall(self, host: str, rules: str) -> None:
        """Filter what arrives at `host` by `rules` of nftables; "" admits all."""
        chain = "type filter hook input priority 0; policy accept;"
        table = f"flush ruleset\ntable inet test {{\n chain arriving {{\n {chain}\n {rules}\n }}\n}}\n"
        command = namespaces.inside(self.name(host), ["nft", "-f", "-"])
        subprocess.run(command, input=table, text=True, check=True)

    def _add_network(self, network: int) -> None:
        if network not in self._networks:
            self._networks.add(network)
            bridge = f"bridge{network}"
            namespaces.ip("-n", self._switch, "link", "add", bridge, "type", "bridge")
            namespaces.ip("-n", self._switch, "link", "set", "dev", bridge, "up")


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    """Networks without hosts; skipped where namespaces cannot be made."""
    with ExitStack() as stack:
        reason = namespaces.unavailable()
        if not reason:
            try:
                made = Hosts(tmp_path, stack)
            except subprocess.CalledProcessError as error:
                reason = str(error)
        if reason:
            (pytest.fail if STRICT else pytest.skip)(f"hosts cannot be made: {reason}")
        yield made
