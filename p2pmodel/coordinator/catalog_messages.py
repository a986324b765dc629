"""What coordinators and clients share of a catalog beside its torrents: aliases as JSON, and signed statements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from p2pmodel.core.content.names import DEFAULT_REVISION, Reference, RepoId, check_name, is_commit
from p2pmodel.errors import InvalidInput

SIGNATURES = "/signatures"
"""Path of the signed statements."""
MAX_OF_OWNER = 4
"""Statements of one publisher over one snapshot that a coordinator keeps."""
ALIASES = "/aliases"
ROLLBACK = "/aliases/rollback"
NAME_HEADER = "X-P2PModel-Name"
"""Header of a torrent that was found by an alias: the name that a client's cache may point at the commit."""
MAX_MOVES = 32
"""Moves of one alias that are kept, the latest."""
MAX_ALIASES = 10_000
"""Aliases of one coordinator."""


@dataclass(frozen=True, slots=True)
class AliasMove:
    """An alias was pointed at `commit` by a publisher, at a Unix time."""

    commit: str
    by: str
    at: float


@dataclass(frozen=True, slots=True)
class Alias:
    """A name that publishers move from commit to commit, and the commits it has pointed at, the latest last.

    `owner` moves it, and administrators do.
    """

    repo: RepoId
    name: str
    owner: str
    moves: tuple[AliasMove, ...]

    @property
    def ref(self) -> Reference:
        """The name in its repository."""
        return Reference(self.repo, self.name)

    @property
    def commit(self) -> str:
        """The commit that the alias points at."""
        return self.moves[-1].commit

    def moved(self, move: AliasMove) -> "Alias":
        """The alias after one more move; after one to the same commit it is the same."""
        if move.commit == self.commit:
            return self
        return Alias(self.repo, self.name, self.owner, (*self.moves, move)[-MAX_MOVES:])

    def rolled_back(self) -> "Alias | None":
        """The alias before its last move; None if no earlier move is known."""
        return Alias(self.repo, self.name, self.owner, self.moves[:-1]) if len(self.moves) > 1 else None


def check_alias(name: str) -> str:
    """Return `name` if an alias can have it; else InvalidInput."""
    check_name(name)
    if name == DEFAULT_REVISION or name.startswith("refs/"):
        raise InvalidInput(f"{name} cannot be an alias: the hub uses this name", hint="use a name such as stable")
    return name


def alias_plain(alias: Alias) -> dict[str, Any]:
    """An alias as JSON values."""
    return {
        "repo": str(alias.repo),
        "name": alias.name,
        "commit": alias.commit,
        "owner": alias.owner,
        "moves": [{"commit": move.commit, "by": move.by, "at": move.at} for move in alias.moves],
    }


def alias_of(plain: Any) -> Alias:
    """The alias in JSON values. Raises InvalidInput."""
    try:
        moves = tuple(_move(each) for each in plain["moves"])
        alias = Alias(RepoId(plain["repo"]), check_alias(plain["name"]), str(plain["owner"]), moves[-MAX_MOVES:])
    except (TypeError, ValueError, LookupError, AttributeError):
        raise InvalidInput("an alias is malformed") from None
    if not moves:
        raise InvalidInput("an alias points at no commit")
    return alias


def _move(plain: Mapping[str, Any]) -> AliasMove:
    move = AliasMove(plain["commit"], str(plain["by"]), float(plain["at"]))
    if not is_commit(move.commit):
        raise InvalidInput("an alias points at something that is not a commit")
    return move
