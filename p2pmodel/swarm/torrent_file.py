"""A .torrent as a file on this machine."""

from pathlib import Path

from p2pmodel.core.names import printable
from p2pmodel.errors import InvalidInput, NotFound
from p2pmodel.swarm.metainfo import MAX_TORRENT_SIZE


def read_torrent(path: Path) -> bytes:
    """The bytes in `path`, no more than enough to tell that they are too many. Raises NotFound or InvalidInput."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_TORRENT_SIZE + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no file {printable(str(path))}") from None
    except OSError as error:
        raise InvalidInput(f"{printable(str(path))} cannot be read: {error.strerror}") from None
