"""Files with tokens of coordinators: those that the user names, and those that a coordinator makes for its own user."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pmodel.config.checks import check_url
from p2pmodel.coordinator.tokens import check_token
from p2pmodel.core.files.own_files import read_secret
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.errors import InvalidInput


def read_tokens(path: Path) -> dict[str, str]:
    """The tokens in `path`, by the coordinator's URL: lines `URL TOKEN`, or one token alone, which is that of "".

    Raises InvalidInput for a file that cannot be used.
    """
    text, place = read_secret(path)
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    if len(lines) < 2 and not text.lstrip().startswith(("http://", "https://")):
        return {"": check_token(text, place)}
    try:
        tokens = {check_url(url): check_token(token, place) for url, token in lines}
    except ValueError:
        raise InvalidInput(
            f"{place} is malformed",
            hint="it holds one token, or a line 'URL TOKEN' for each coordinator",
        ) from None
    return tokens


def local_token_file(state_dir: Path, host: str, port: int) -> Path:
    """Where a coordinator that listens at `host` and `port` keeps a publish token for other commands of its user.

    The name of the machine is part of the path: several machines may share a home directory.
    """
    return state_dir / "coordinators" / f"{platform.node()}-{host}-{port}.token"


@contextmanager
def kept_token(paths: Sequence[Path], token: str) -> Iterator[str]:
    """Keep `token` in files that no other user can read while the context lasts. Yields why that failed, or ""."""
    failure = ""
    try:
        for path in paths:
            make_folders(path.parent)
            write_private(path, f"{token}\n".encode())
    except OSError as error:
        failure = f"{error.filename}: {error.strerror}"
    try:
        yield failure
    finally:
        for path in paths:
            with suppress(OSError):
                if path.read_text().strip() == token:  # no later coordinator has replaced it
                    path.unlink()
