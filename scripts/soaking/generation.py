"""Random scenarios, the same for the same seed. Each leaves a way to finish: a mirror or a seeder without a fault."""

import random
from typing import get_args

from scripts.soaking.scenario import Begin, Fault, Kind, Moment, Role, Scenario, Setting, Topology

_SIZES = (8, 8, 12, 12, 16, 24)
_TWO_FAULTS = 0.3
_MOMENTS: tuple[Moment, ...] = get_args(Moment)
_KINDS: tuple[Kind, ...] = ("freeze", "unplug", "throttle", "kill")


def setting_of(seed: int, number: int, *, quick: bool = False) -> Setting:
    """The setting of a round. `quick`: two peers and the smallest snapshot."""
    dice = random.Random(f"{seed} {number}")
    topologies: list[Topology] = [*get_args(Topology)]
    begins: tuple[Begin, ...] = get_args(Begin)
    begin = begins[(number // len(topologies) + dice.randrange(3)) % 3]
    peers, size = (2, _SIZES[0]) if quick else (dice.choice((2, 2, 3, 4)), dice.choice(_SIZES))
    mirrors = 2 if begin == "cold" else dice.choice((1, 1, 2))
    return Setting(topologies[number % len(topologies)], begin, peers, size, mirrors, dice.random() < 0.6)


def scenario_of(seed: int, number: int, index: int, *, quick: bool = False) -> Scenario:
    """Scenario `index` of a round."""
    setting = setting_of(seed, number, quick=quick)
    dice = random.Random(f"{seed} {number} {index}")
    while True:
        faults = _faults(setting, dice)
        if _leaves_a_way(setting, faults):
            return Scenario(f"{number}.{index}", setting, faults)


def _faults(setting: Setting, dice: random.Random) -> tuple[Fault, ...]:
    roles: list[Role] = ["peer", "mirror", "coordinator"]
    roles += [] if setting.begin == "cold" else ["seeder", "seeder"]
    faults: dict[Role, Fault] = {}
    if setting.topology == "moving":
        faults["coordinator"] = Fault("coordinator", "move", dice.choice(_MOMENTS))
        roles = [role for role in roles if role != "coordinator"] + ["coordinator"]
    for _ in range(2 if dice.random() < _TWO_FAULTS else 1):
        role = dice.choice(roles)
        faults.setdefault(role, Fault(role, dice.choice(_KINDS), dice.choice(_MOMENTS)))
    return tuple(faults.values())


def _leaves_a_way(setting: Setting, faults: tuple[Fault, ...]) -> bool:
    hit = {fault.role for fault in faults}
    if "mirror" not in hit or setting.mirrors > 1:
        return True
    # Then only the seeder is left, which all peers must reach and find.
    found = not hit & {"seeder", "coordinator"}
    return found and setting.begin != "cold" and setting.topology in ("flat", "routed", "nat", "ipv6", "nginx")
