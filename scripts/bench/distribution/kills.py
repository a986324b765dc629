"""Processes that are killed in the middle of a run."""

from dataclasses import dataclass

ROLES = ("seeder", "coordinator", "mirror")


@dataclass(slots=True)
class Kill:
    """SIGKILL for `roles` and for a share of the `peers`, once the nodes hold the share `at` of all bytes wanted.

    `restart`: seconds after which all of them start again; None: never.
    """

    roles: tuple[str, ...]
    peers: float
    at: float
    restart: float | None
    done: bool = False

    @classmethod
    def parse(cls, text: str, at: float, restart: float | None) -> "Kill":
        """`seeder,peers:0.3,coordinator`. Raises ValueError naming the part at fault."""
        roles, peers = [], 0.0
        for part in filter(None, text.split(",")):
            name, _, share = part.partition(":")
            if name == "peers":
                peers = float(share)
            elif name in ROLES and not share:
                roles.append(name)
            else:
                raise ValueError(f"'{part}' is neither peers:SHARE nor one of {', '.join(ROLES)}")
        if not 0 <= peers <= 1:
            raise ValueError(f"peers:{peers} is not a share from 0 to 1")
        return cls(tuple(roles), peers, at, restart)
