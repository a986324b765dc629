"""Home folders in paths: `~` and `~USER` at the start."""

from pathlib import Path

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput


def expanded(path: Path) -> Path:
    """`path` with the home folder for its `~` or `~USER`. Raises InvalidInput where that is not known."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise InvalidInput(f"{printable(str(path))}: no such home folder is known", hint=_HINT) from None


def home() -> Path:
    """The home folder of this user. Raises InvalidInput where it is not known."""
    try:
        return Path.home()
    except RuntimeError:
        raise InvalidInput("the home folder of this user is not known", hint=_HINT) from None


_HINT = "write the whole path, or set HOME"
