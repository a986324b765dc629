"""One run of a scenario: the servers, the peers, the faults in their time, and what came out."""

import json
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from scripts.bench.rigs.programs import Program, stop_all
from scripts.soaking.bounds import LINKS, PEER_TIMEOUT
from scripts.soaking.fleet import Fleet
from scripts.soaking.network import Machine, Network
from scripts.soaking.scenario import Fault, Scenario
from scripts.soaking.snapshot import Snapshot, digests_in

SHARES = {"midway": 0.5, "end": 0.98}
"""Share of what a peer receives undisturbed, on average over the peers, at which a fault comes."""
_FIRST = 0.01
_PUBLISHED_AFTER = 0.5
"""Seconds within which a serving seeder has published to the coordinator."""
_LEAST_WAIT, _WAIT_FACTOR = 20.0, 1.5
_MOST_UNDISTURBED = 90.0
_TICK = 0.01
_STOP_SECONDS = 30.0


@dataclass(slots=True)
class Outcome:
    """What a run showed. `seconds` by peer without a fault, from the start of the peers until it was complete; None:
    it did not get there. `received` are the bytes that reached a peer on average."""

    seconds: dict[str, float | None] = field(default_factory=dict)
    received: float = 0.0
    lacked: float = 1.0
    """Share of its bytes that the slowest surviving peer lacked when the first fault came."""
    mirror_bytes: int = 0
    complaints: list[str] = field(default_factory=list)
    """What is wrong whatever the bounds are."""
    late_faults: int = 0
    """Faults with a moment that did not come before the last peer was complete."""

    @property
    def slowest(self) -> float | None:
        """Seconds of the slowest peer; None if one did not finish."""
        return None if None in self.seconds.values() else max(filter(None, self.seconds.values()), default=0.0)


class Run:
    """Runs `scenario` once with all files in `place`. `expected`: bytes that a peer receives undisturbed; `limit`:
    seconds after which the peers are not waited for any more; `ended`: end early."""

    def __init__(
        self, scenario: Scenario, snapshot: Snapshot, place: Path, ended: Event, *, expected: float, limit: float
    ) -> None:
        self._scenario = scenario
        self._snapshot = snapshot
        self._place = place
        self._expected = expected
        self._limit = limit
        self._ended = ended
        self._pending = list(scenario.faults)
        self._outcome = Outcome()
        self._began = 0.0

    def run(self) -> Outcome:
        """Run, stop everything, and check what is left."""
        self._place.mkdir(parents=True)
        with ExitStack() as stack:
            network = Network(self._scenario.setting, LINKS, stack)
            fleet = Fleet(self._scenario, network, self._snapshot, self._place, stack)
            fleet.start_servers()
            time.sleep(_PUBLISHED_AFTER)
            self._apply([fault for fault in self._pending if _precedes_the_peers(fault)], fleet)
            self._began = time.monotonic()
            fleet.start_peers()
            survivors = self._survivors(fleet, network)
            self._watch(fleet, network, survivors)
            self._note_ends(fleet, survivors)
            running = [*fleet.programs.values(), *fleet.gone]
            stop_all(running, _STOP_SECONDS)
            self._note_exits(fleet)
            self._outcome.mirror_bytes = sum(fleet.mirror_bytes().values())
            self._outcome.late_faults = len(self._pending)
        self._note_logs()
        return self._outcome

    # -- the run ---------------------------------------------------------------------------------------------

    def _survivors(self, fleet: Fleet, network: Network) -> list[Machine]:
        hit = {fleet.machine_of(fault).name for fault in self._scenario.faults if fault.role == "peer"}
        return [peer for peer in network.peers if peer.name not in hit]

    def _watch(self, fleet: Fleet, network: Network, survivors: list[Machine]) -> None:
        until = self._began + self._limit
        while not (self._ended.is_set() or self._all_ended(fleet, survivors) or time.monotonic() > until):
            if self._pending:
                received = {peer.name: network.received(peer) for peer in network.peers}
                share = sum(received.values()) / len(received) / self._expected
                due = [fault for fault in self._pending if share >= self._share_of(fault)]
                self._apply(due, fleet, min(received[peer.name] for peer in survivors) / self._expected)
            time.sleep(_TICK)
        self._outcome.received = sum(map(network.received, network.peers)) / len(network.peers)

    @staticmethod
    def _share_of(fault: Fault) -> float:
        return SHARES.get(fault.moment, 0.0 if fault.kind == "move" else _FIRST)

    def _apply(self, due: list[Fault], fleet: Fleet, share: float = 0.0) -> None:
        if due and len(self._pending) == len(self._scenario.faults):
            self._outcome.lacked = max(1.0 - share, 0.0)
        for fault in due:
            self._pending.remove(fault)
            fleet.apply(fault)

    @staticmethod
    def _all_ended(fleet: Fleet, survivors: list[Machine]) -> bool:
        return all(_is_complete(fleet.programs[peer.name]) or fleet.programs[peer.name].ended for peer in survivors)

    # -- what came out ---------------------------------------------------------------------------------------

    def _note_ends(self, fleet: Fleet, survivors: list[Machine]) -> None:
        for peer in survivors:
            program = fleet.programs[peer.name]
            complete = _is_complete(program)
            self._outcome.seconds[peer.name] = program.lines[0][0] - self._began if complete else None
            if not complete:
                last = program.progress()
                bytes_here, why = f"{last.get('done', 0)} of {last.get('total', 0)} bytes", last.get("waiting_for")
                ended = f"ended: {program.last_error()}" if program.ended else f"has {bytes_here}, waits for {why}"
                self._outcome.complaints.append(f"{peer.name} {ended}")
                continue
            found = digests_in(Path(json.loads(program.lines[0][1])["path"]))
            if found != self._snapshot.digests:
                right = self._snapshot.digests
                wrong = sorted(path for path in right.keys() | found if found.get(path) != right.get(path))
                self._outcome.complaints.append(f"{peer.name} has wrong files: {', '.join(wrong)}")

    def _note_exits(self, fleet: Fleet) -> None:
        for name, program in fleet.programs.items():
            if program in fleet.gone:
                continue
            if program.exit_code == -signal.SIGKILL:
                self._outcome.complaints.append(f"{name} did not end on SIGTERM")
            elif program.exit_code not in (0, 130) and name not in fleet.hit:
                self._outcome.complaints.append(f"{name} ended: {program.last_error()}")

    def _note_logs(self) -> None:
        for log in sorted(self._place.glob("*.log")):
            text = log.read_text(errors="replace")
            for sign in ("Traceback (most recent call last)", "never retrieved", "never awaited"):
                if sign in text:
                    self._outcome.complaints.append(f"{log.name} has '{sign}'")


def limit_of(undisturbed: float, scenario: Scenario) -> float:
    """Seconds to wait for the peers of `scenario`: well above its bound, to see how late they are."""
    setting = scenario.setting
    alone = setting.peers * setting.size / min(LINKS["mirror"].up, LINKS["seeder"].up)
    return max(_WAIT_FACTOR * (undisturbed + 2 * PEER_TIMEOUT * scenario.moments + alone), _LEAST_WAIT)


def undisturbed_limit() -> float:
    """Seconds to wait for peers without any fault."""
    return _MOST_UNDISTURBED


def _is_complete(program: Program) -> bool:
    return bool(program.lines)


def _precedes_the_peers(fault: Fault) -> bool:
    return fault.moment == "start" and fault.role != "peer" and fault.kind != "move"
