"""The programs of one run, each on its machine: coordinator, mirrors, seeder or holder, and the fetching peers."""

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.bench.rigs.machine import P2PMODEL, environment, publish_token
from scripts.bench.rigs.programs import Program
from scripts.soaking.bounds import PEER_TIMEOUT, THROTTLED
from scripts.soaking.network import COORDINATOR_NAME, Machine, Network, in_url
from scripts.soaking.proxy import PROXY_PORT, Proxy
from scripts.soaking.scenario import Fault, Scenario
from scripts.soaking.snapshot import REPO, Snapshot

COORDINATOR_PORT, MIRROR_PORT, PEER_PORT = 6969, 8090, 6881
SEED_SECONDS = "600"
_SECONDS = f"{PEER_TIMEOUT:g}"
SETTINGS = {
    "P2PMODEL_SWARM_PEER_TIMEOUT": _SECONDS,
    "P2PMODEL_SWARM_COORDINATOR_TIMEOUT": _SECONDS,
    "P2PMODEL_ORIGIN_CONNECT_TIMEOUT": _SECONDS,
    "P2PMODEL_ORIGIN_READ_TIMEOUT": _SECONDS,
    "P2PMODEL_SWARM_TRUST": "mirrors",
    "P2PMODEL_HTTP_ALLOWED_HOSTS": COORDINATOR_NAME,
}


class Fleet:
    """The programs of `scenario` in `network`; logs and homes are in `place`. All end with the stack."""

    def __init__(self, scenario: Scenario, network: Network, snapshot: Snapshot, place: Path, stack: ExitStack) -> None:
        self._scenario = scenario
        self._network = network
        self._snapshot = snapshot
        self._place = place
        self._stack = stack
        self._env = SETTINGS | self._trust()
        self.programs: dict[str, Program] = {}
        """By machine; those of the peers from `start_peers` on."""
        self.gone: list[Program] = []
        """Programs that a fault has killed."""
        self.hit: set[str] = set()
        """Machines that a fault has hit."""

    def start_servers(self) -> None:
        """Start all servers, and wait until they serve."""
        for mirror in self._network.mirrors:
            self.programs[mirror.name] = self._mirror(mirror)
        if self._scenario.setting.begin == "holder":
            shutil.copytree(self._snapshot.state, self._place / "state")
        coordinator = self._network.coordinator
        self.programs[coordinator.name] = self._coordinator(self._network.coordinator.address)
        for program in self.programs.values():
            program.first()
        if self._scenario.setting.topology == "nginx":
            self.programs["nginx"] = Proxy(coordinator, COORDINATOR_PORT, self._place).start(self._stack)
        if seeder := self._network.seeder:
            self.programs[seeder.name] = self._seeder(seeder)
            self.programs[seeder.name].first()

    def start_peers(self) -> None:
        """Start all fetches."""
        for peer in self._network.peers:
            stays = ["--seed-time", SEED_SECONDS] if self._scenario.setting.stay else []
            self.programs[peer.name] = self._start(peer, self._fetch(peer, *stays))

    def apply(self, fault: Fault) -> None:
        """Let a fault happen."""
        machine = self.machine_of(fault)
        program = self.programs[machine.name]
        self.hit.add(machine.name)
        if fault.kind == "freeze":
            program.signal(signal.SIGSTOP)
        elif fault.kind == "unplug":
            self._network.unplug(machine)
        elif fault.kind == "throttle":
            self._network.throttle(machine, THROTTLED)
        else:
            self.gone.append(program)
            program.signal(signal.SIGKILL)
            if fault.kind == "move":
                self.programs[machine.name] = self._coordinator(self._network.move_coordinator())

    def machine_of(self, fault: Fault) -> Machine:
        """The machine that a fault hits."""
        network = self._network
        found = {"coordinator": network.coordinator, "mirror": network.mirrors[0], "peer": network.peers[-1]}
        return found.get(fault.role) or network.machines[len(network.mirrors) + 1]

    def mirror_bytes(self) -> dict[str, int]:
        """Bytes of content that each mirror sent, by its own log."""
        found = {}
        for mirror in self._network.mirrors:
            log = self._place / f"{mirror.name}.served"
            entries = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
            found[mirror.name] = sum(entry["bytes"] for entry in entries if "/resolve/" in entry["path"])
        return found

    # -- commands --------------------------------------------------------------------------------------------

    def _trust(self) -> dict[str, str]:
        """Without any mirror that answers, the coordinator's word must do."""
        alone = self._scenario.hits("mirror") and self._scenario.setting.mirrors == 1
        return {"P2PMODEL_SWARM_TRUST": "coordinator"} if alone else {}

    def _start(self, machine: Machine, arguments: Sequence[str], env: Mapping[str, str] | None = None) -> Program:
        home = self._place / machine.name
        home.mkdir(exist_ok=True)
        whole = environment(home) | self._env | dict(env or {})
        command = machine.inside([*P2PMODEL, *arguments, "--json"])
        return Program(command, self._stack, env=whole, log=self._place / f"{machine.name}.log")

    def _mirror(self, machine: Machine) -> Program:
        log = str(self._place / f"{machine.name}.served")
        options = ["--listen", self._listen(machine, MIRROR_PORT), "--insecure-public", "--access-log", log]
        return self._start(machine, ["mirror", "serve", *options, "--cache-dir", str(self._snapshot.cache)])

    def _coordinator(self, address: str) -> Program:
        machine = self._network.coordinator
        listen = f"{in_url(address)}:{COORDINATOR_PORT}"
        public_url = f"http://{COORDINATOR_NAME}:{COORDINATOR_PORT}"
        env = {}
        if self._scenario.setting.topology == "multihomed":
            listen = f"0.0.0.0:{COORDINATOR_PORT}"
        if self._scenario.setting.topology == "nginx":
            listen, public_url = f"127.0.0.1:{COORDINATOR_PORT}", self._coordinator_url(machine)
            env = {"P2PMODEL_HTTP_TRUSTED_PROXIES": "127.0.0.1"}
        options = ["--listen", listen, "--public-url", public_url]
        options += ["--insecure-public", "--publish-token-file", str(publish_token(self._place))]
        return self._start(machine, ["coordinator", *options, "--state-dir", str(self._place / "state")], env)

    def _seeder(self, machine: Machine) -> Program:
        cache = self._place / machine.name / "hub"
        cache.parent.mkdir()
        self._snapshot.place_in(cache)
        if self._scenario.setting.begin == "holder":
            return self._start(machine, self._fetch(machine, "--seed-time", SEED_SECONDS))
        options = ["--swarm-listen", self._listen(machine, PEER_PORT), "--cache-dir", str(cache)]
        options += ["--listen", self._listen(machine, COORDINATOR_PORT), "--insecure-public"]
        command = ["seed", REPO, *options, "--coordinator", self._coordinator_url(machine)]
        return self._start(machine, command, {"HF_HUB_OFFLINE": "1"})

    def _fetch(self, machine: Machine, *options: str) -> list[str]:
        cache = self._place / machine.name / "hub"
        found = ["fetch", REPO, "--cache-dir", str(cache), "--no-daemon", "--progress", "json", *options]
        found += ["--swarm-listen", self._listen(machine, PEER_PORT)]
        found += ["--coordinator", self._coordinator_url(machine)]
        for mirror in self._network.mirrors:
            found += ["--endpoint", f"http://{in_url(mirror.seen_from(machine))}:{MIRROR_PORT}"]
        return found

    def _coordinator_url(self, machine: Machine) -> str:
        host = COORDINATOR_NAME
        if self._scenario.setting.topology != "moving":
            host = in_url(self._network.coordinator.seen_from(machine))
        if self._scenario.setting.topology == "nginx":
            return f"http://{host}:{PROXY_PORT}/p2p"
        return f"http://{host}:{COORDINATOR_PORT}"

    @staticmethod
    def _listen(machine: Machine, port: int) -> str:
        several = len(machine.addresses) > 1 and port != PEER_PORT
        return f"{'0.0.0.0' if several else in_url(machine.address)}:{port}"
