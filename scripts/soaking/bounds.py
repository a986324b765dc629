"""What a scenario may take at most: seconds and copies from the mirrors. Pure.

Seconds: what the same setting took undisturbed, two peer timeouts for each moment at which something fails, and what
the sources that are left need for the rest: the bytes that the slowest surviving peer lacked when the fault came, as
many times as there are peers that may have to get them alone, at the rate of the slowest such source. On a busy
machine, where the undisturbed run took longer than the links explain, that takes longer by the same factor.
"""

from dataclasses import dataclass

from scripts.bench.rigs.cluster import Link
from scripts.soaking.scenario import Scenario, Setting

PEER_TIMEOUT = 4.0
"""Setting of all nodes, for the timeouts of the peers and of the mirrors."""
THROTTLED = 20_000
"""Bytes per second of a throttled machine."""
LINKS = {
    "coordinator": Link.of_mbit(100),
    "mirror": Link.of_mbit(24),
    "seeder": Link.of_mbit(32),
    "peer": Link.of_mbit(48),
}
START = 2.5
"""Seconds that the programs take to start, and to find each other."""
HEADERS = 1.1
"""Bytes on a link for a byte of content."""
BUDGET = 1.05
WASTE = 0.5
"""Copies in requests that were cut off: a mirror has sent some 100 kB more than the peer read. With two mirrors
undisturbed peers cut requests off, too, when the other mirror takes over a part of a range: in snapshots this small
that is up to 0.45 of each copy."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds for all peers, and copies of the snapshot that the mirrors may send."""

    seconds: float
    copies: float
    needed: float
    """The part of `seconds` that the remaining sources need."""


def bounds(scenario: Scenario, undisturbed: float, lacked: float) -> Bounds:
    """The bounds of `scenario`, if the slowest surviving peer lacked the share `lacked` when the first fault came."""
    setting = scenario.setting
    sources = [LINKS["mirror"].up] if setting.mirrors > 1 or not scenario.hits("mirror") else []
    sources += [LINKS["seeder"].up] if setting.begin != "cold" and not scenario.hits("seeder") else []
    alone = setting.peers if apart(scenario) else 1
    needed = HEADERS * lacked * setting.size * alone / min(sources) if scenario.faults else 0.0
    needed *= max(1.0, undisturbed / _explained(setting))
    seconds = undisturbed + 2 * PEER_TIMEOUT * scenario.moments + needed
    return Bounds(seconds, _copies(scenario), needed)


def _explained(setting: Setting) -> float:
    """Seconds of an undisturbed run on a machine that is not busy."""
    alone = setting.peers if _walled(setting) else 1
    return START + HEADERS * setting.size * alone / min(LINKS["mirror"].up, LINKS["seeder"].up)


def apart(scenario: Scenario) -> bool:
    """Whether peers may have to get everything without each other: walls between them, or no coordinator."""
    return _walled(scenario.setting) or scenario.hits("coordinator")


def _walled(setting: Setting) -> bool:
    return setting.topology in ("nat", "firewall", "multihomed")


def _copies(scenario: Scenario) -> float:
    setting = scenario.setting
    if not scenario.faults and setting.begin != "cold" and not _walled(setting):
        return 0.0
    # Pieces that went with a peer are taken again: at most one more copy.
    copies = setting.peers if apart(scenario) else BUDGET + (1.0 if scenario.hits("peer") else 0.0)
    return copies * (1 + WASTE) if setting.mirrors > 1 else copies + WASTE
