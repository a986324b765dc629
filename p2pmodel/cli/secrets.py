"""Tokens that the user keeps in files."""

from pathlib import Path

from p2pmodel.domain.names import printable
from p2pmodel.errors import InvalidInput
from p2pmodel.service.coordinator import check_token


def read_token(path: Path) -> str:
    """The coordinator token in `path`. Raises InvalidInput for a file that cannot be read or a malformed token."""
    try:
        return check_token(path.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not ASCII text"
        raise InvalidInput(f"the token file {printable(str(path))} cannot be read: {reason}") from None
