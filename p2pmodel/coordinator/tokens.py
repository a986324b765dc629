"""Tokens of a coordinator, their files, and the announce key that stands in tracker URLs in place of one.

Torrents are stored, published and passed on, and their clients send nothing but the tracker's URL. So the URL contains
a key that is derived from the token, cannot be turned back into it, and opens the tracker alone.
"""

import platform
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from p2pmodel.config.checks import check_url
from p2pmodel.core.files.own_files import read_secret
from p2pmodel.core.files.private_files import make_folders, write_private
from p2pmodel.core.network.tokens import announce_key, plain_token
from p2pmodel.errors import InvalidInput

MEMBER_SETTING = "coordinator_token_file (P2PMODEL_COORDINATOR_TOKEN_FILE)"
PUBLISH_SETTING = "publish_token_file (P2PMODEL_PUBLISH_TOKEN_FILE)"
"""The settings that name a node's token files, as messages show them."""

WRONG_KEY = "the tracker URL has no valid announce key"
"""Why a tracker refuses an announce."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}")
_KEY_SEGMENT = re.compile(r"[0-9A-Fa-f]{16,}|[0-9A-Za-z]{24,}")
"""A segment of a tracker's path that may be a key of its own kind."""


def check_token(text: str, place: str) -> str:
    """The token in `text`, as `plain_token` finds it. `place` names where it is from. Raises InvalidInput."""
    token = plain_token(text, place)
    if not _TOKEN.fullmatch(token):
        raise InvalidInput(
            f"{place} holds a token that is not 16 to 128 letters, digits, '-' or '_'",
            hint="make one with 'openssl rand -hex 16'",
        )
    return token


def new_token() -> str:
    """A random token."""
    return secrets.token_hex(16)


def announce_url(coordinator: str, token: str) -> str:
    """The tracker URL of the coordinator at the base URL `coordinator`; `token` is "" where it requires none."""
    base = f"{coordinator.rstrip('/')}/announce"
    return f"{base}/{announce_key(token)}" if token else base


def without_key(tracker: str) -> str:
    """A tracker URL for what is printed: without the announce key that it may have.

    Other trackers have keys of their own: what follows `announce`, segments that look like one, and the query go, too.
    """
    base = re.split(r"[?#]", tracker, maxsplit=1)[0]
    scheme, mark, rest = base.partition("://")
    host, *segments = rest.split("/")
    if "announce" in segments:
        segments = segments[: segments.index("announce") + 1]
    host = host.rpartition("@")[2]
    return scheme + mark + "/".join([host, *(each for each in segments if not _KEY_SEGMENT.fullmatch(each))])


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
