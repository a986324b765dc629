"""Names of hosts: folded node sets (`gpu[001-100]`), files of them, and folding for people."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ClusterShell.NodeSet import RESOLVER_NOGROUP, NodeSet, NodeSetException

from p2pmodel.cluster.launcher import check_host
from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

MOST_HOSTS = 20_000
_HINT = "write gpu[001-100], gpu1,gpu2, or @FILE with such a set on each line"


def parse_hosts(text: str) -> tuple[str, ...]:
    """The hosts of a node set, or of the file that `@FILE` names, in order and each once. Raises InvalidInput."""
    found = _of_file(Path(text[1:])) if text.startswith("@") else _expanded(text, "the node set")
    hosts = tuple(dict.fromkeys(found))
    if not hosts:
        raise InvalidInput(f"'{printable(text)}' names no host", hint=_HINT)
    if len(hosts) > MOST_HOSTS:
        raise InvalidInput(f"'{printable(text)}' names {len(hosts)} hosts, more than {MOST_HOSTS}", hint=_HINT)
    return hosts


def folded(hosts: Iterable[str]) -> str:
    """`hosts` as a node set: gpu[001-003,007]."""
    return str(NodeSet.fromlist(list(hosts), resolver=RESOLVER_NOGROUP))


def _of_file(path: Path) -> Sequence[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InvalidInput(f"the file of hosts {printable(str(path))} cannot be read: {reason}", hint=_HINT) from None
    sets = [text for line in lines if (text := line.partition("#")[0].strip())]
    return [host for text in sets for host in _expanded(text, f"{printable(str(path))}")]


def _expanded(text: str, where: str) -> Sequence[str]:
    # Without groups: their definitions may run commands of a configuration file.
    if text.count("-") and _huge(text):
        raise InvalidInput(f"{where}: '{printable(text)}' names too many hosts", hint=_HINT)
    try:
        hosts = list(NodeSet(text, resolver=RESOLVER_NOGROUP))
    except NodeSetException as error:
        raise InvalidInput(f"{where}: '{printable(text)}' is not a node set: {error}", hint=_HINT) from None
    return [check_host(host) for host in hosts]


def _huge(text: str) -> bool:
    """Whether a range in `text` has more than MOST_HOSTS numbers: expanding it could take minutes."""
    bounds = [part.split("-")[:2] for part in text.replace("[", ",").replace("]", ",").split(",") if "-" in part]
    numbers = [(int(first), int(last.partition("/")[0])) for first, last in bounds if first.isdigit() and _whole(last)]
    return any(last - first > MOST_HOSTS for first, last in numbers)


def _whole(text: str) -> bool:
    return text.partition("/")[0].isdigit()
