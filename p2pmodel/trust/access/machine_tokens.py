"""Machine tokens: issued with a name, groups and an expiry, stored as hashes, and revoked by name.

Several processes use one file. A running server sees a change within `LOOK_EVERY` seconds, without a reload.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.own_files import read_own
from p2pmodel.core.files.private_files import FILE_MODE, make_folders, write_private
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import Conflict, InvalidInput, LocalResource, NotFound
from p2pmodel.os_errors import translated
from p2pmodel.trust.access.policy import Subject

PREFIX = "p2pm_"
"""Begin of every machine token. Such a token is never sent to a mirror."""
LOOK_EVERY = 1.0
"""Seconds between two looks whether the file has changed."""
LOCK_PATIENCE = 10.0
MOST = 10_000

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class MachineToken:
    """The record of one token. Times are seconds since 1970; `expires` and `revoked` 0: never.

    `digest` is the sha256 of the token, `key` the announce key that is derived from it.
    """

    name: str
    groups: tuple[str, ...]
    digest: str
    key: str
    created: float
    expires: float = 0.0
    revoked: float = 0.0

    def usable(self, now: float) -> bool:
        """Whether it opens anything at the time `now`."""
        return not self.revoked and (not self.expires or now < self.expires)

    def state(self, now: float) -> str:
        """`valid`, `expired` or `revoked`."""
        return "revoked" if self.revoked else "valid" if self.usable(now) else "expired"

    @property
    def subject(self) -> Subject:
        """The client that presents it."""
        return Subject("token", self.name, frozenset(self.groups))


class MachineTokens:
    """The tokens in the file `path`, which need not exist."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._look_at = 0.0
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[MachineToken, ...] = ()
        self._by_digest: dict[str, MachineToken] = {}
        self._by_key: dict[str, MachineToken] = {}

    def by_token(self, token: str) -> MachineToken | None:
        """The usable token with this text."""
        self._look()
        found = self._by_digest.get(digest_of(token)) if token.startswith(PREFIX) else None
        return found if found is not None and found.usable(self._clock()) else None

    def by_key(self, key: str) -> MachineToken | None:
        """The usable token with this announce key."""
        self._look()
        found = self._by_key.get(key)
        return found if found is not None and found.usable(self._clock()) else None

    def all(self) -> tuple[MachineToken, ...]:
        """Every token that was issued, the oldest first. Raises InvalidInput for a file that cannot be used."""
        self._read()
        return self._tokens

    @translated()
    def issue(self, name: str, groups: Sequence[str], lifetime: float | None) -> str:
        """Make a token and return it: it is stored as a hash, and cannot be shown again.

        Raises Conflict if a usable token has that name.
        """
        for part in (name, *groups):
            if not _NAME.fullmatch(part):
                raise InvalidInput(
                    f"'{printable(part, 80)}' is no name of a token or group",
                    hint="use 1 to 64 letters, digits, '.', '_', '@' or '-'",
                )
        now, token = self._clock(), PREFIX + secrets.token_hex(20)
        expires = now + lifetime if lifetime else 0.0
        made = MachineToken(name, tuple(dict.fromkeys(groups)), digest_of(token), announce_key(token), now, expires)
        with self._changing() as tokens:
            if any(each.name == name and each.usable(now) for each in tokens):
                raise Conflict(
                    f"there is a token '{name}' already", hint=f"revoke it first: p2pmodel token revoke {name}"
                )
            if len(tokens) >= MOST:
                raise Conflict(f"there are {MOST} tokens already", hint=f"remove old ones from {self._path}")
            tokens.append(made)
        return token

    @translated()
    def revoke(self, name: str) -> MachineToken:
        """Revoke the usable token `name`. Raises NotFound."""
        now = self._clock()
        with self._changing() as tokens:
            for place, each in enumerate(tokens):
                if each.name == name and each.usable(now):
                    tokens[place] = MachineToken(**{**asdict(each), "groups": each.groups, "revoked": now})
                    return tokens[place]
            raise NotFound(f"no valid token has the name '{printable(name, 80)}'", hint="see 'p2pmodel token list'")

    @contextmanager
    def _changing(self) -> Iterator[list[MachineToken]]:
        """The tokens, which are written again afterwards; one process at a time."""
        make_folders(self._path.parent)
        lock = os.open(
            self._path.with_name(f"{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE
        )
        try:
            _lock(lock, self._path)
            self._read()
            tokens = list(self._tokens)
            yield tokens
            plain = {"tokens": [asdict(each) for each in tokens]}
            write_private(self._path, json.dumps(plain, indent=1).encode())
        finally:
            os.close(lock)

    def _look(self) -> None:
        """Read the file again if it has changed. A file that cannot be used opens nothing."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_EVERY
        try:
            self._read()
        except InvalidInput:
            self._keep(None, ())

    def _read(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._keep(None, ())
            return
        except OSError as error:
            raise InvalidInput(f"the file of tokens {self._path} cannot be read: {error.strerror}") from None
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen != self._seen:
            text = read_own(self._path, "file of tokens", secret=True)
            self._keep(seen, _parsed(text, self._path))

    def _keep(self, seen: tuple[int, int, int] | None, tokens: tuple[MachineToken, ...]) -> None:
        self._seen, self._tokens = seen, tokens
        self._by_digest = {each.digest: each for each in tokens}
        self._by_key = {each.key: each for each in tokens}


def digest_of(token: str) -> str:
    """The hash under which a token is stored. A token is random and long, so that a plain hash is enough."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _parsed(text: str, path: Path) -> tuple[MachineToken, ...]:
    try:
        return tuple(_token(plain) for plain in parse_json(text.encode())["tokens"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(
            f"the file of tokens {printable(str(path))} is malformed", hint="restore it, or move it away"
        ) from None


def _token(plain: dict[str, Any]) -> MachineToken:
    times = [float(plain[name]) for name in ("created", "expires", "revoked")]
    groups = tuple(str(group) for group in plain["groups"])
    return MachineToken(str(plain["name"]), groups, str(plain["digest"]), str(plain["key"]), *times)


def _lock(descriptor: int, path: Path) -> None:
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise LocalResource(f"another process keeps {path} locked", hint="wait for it, or stop it") from None
            time.sleep(0.05)
        else:
            return
