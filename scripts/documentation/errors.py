"""The page of errors: code, exit code, HTTP status and meaning of each class of the error tree."""

from collections.abc import Iterator

from p2pmodel.errors import P2PModelError
from scripts.documentation.markdown import code, flat, page, table

_INTRO = """\
Every error has a code, an exit code of the command line and an HTTP status. The command line prints one line on stderr:
what failed, then what to do. HTTP services answer `{"code", "message", "hint"}` with the status."""
_EXITS = """\
0 means done. Servers (`daemon`, `seed`, `mirror serve`, `coordinator`, `mirrors watch`) end with 0 on SIGTERM."""


def text() -> str:
    """The page."""
    tree = list(_tree(P2PModelError, 0))
    rows = [
        (
            "&nbsp;&nbsp;" * depth + code(kind.__name__),
            code(kind.code),
            str(kind.exit_code),
            str(kind.http_status),
            flat((kind.__doc__ or "").partition("\n\n")[0]),
        )
        for kind, depth in tree
    ]
    exits: dict[int, list[str]] = {}
    for kind, _ in tree:
        exits.setdefault(kind.exit_code, []).append(code(kind.code))
    return page(
        "Errors",
        _INTRO.replace("\n", " "),
        table(("class", "code", "exit code", "HTTP status", "meaning"), rows),
        "## Exit codes",
        _EXITS,
        table(("exit code", "error codes"), [(str(number), ", ".join(exits[number])) for number in sorted(exits)]),
    )


def _tree(kind: type[P2PModelError], depth: int) -> Iterator[tuple[type[P2PModelError], int]]:
    """`kind` and the errors below it that the error tree itself declares, in the order of the code."""
    yield kind, depth
    for narrower in kind.__subclasses__():
        if narrower.__module__ == P2PModelError.__module__:
            yield from _tree(narrower, depth + 1)
