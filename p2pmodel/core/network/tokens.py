"""Tokens as users give them: in a file, a variable or a setting, with what editors and secret stores add. Pure."""

import hashlib
import hmac

from p2pmodel.errors import InvalidInput

_AROUND = "\ufeff \t\r\n\v\f\0"
_QUOTES = ("'", '"')
_SCHEME = "bearer"
_KEY_LENGTH = 32


def announce_key(token: str) -> str:
    """The announce key of `token`, 32 hexadecimal digits: it cannot be turned back into the token."""
    return hmac.new(token.encode(), b"announce key", hashlib.sha256).hexdigest()[:_KEY_LENGTH]


def plain_token(text: str, place: str, *, shortest: int = 1) -> str:
    """The token in `text`, without white space, quotes and a `Bearer` around it.

    `place` names the setting, file or variable in messages. Raises InvalidInput, without the token in its message.
    """
    token = text.strip(_AROUND)
    scheme, _, rest = token.partition(" ")
    if scheme.lower() == _SCHEME:
        token = rest.strip(_AROUND)
    if len(token) > 1 and token[0] in _QUOTES and token[0] == token[-1]:
        return plain_token(token[1:-1], place, shortest=shortest)
    if not token or token.lower() == _SCHEME or token in _QUOTES:
        raise InvalidInput(f"{place} is empty", hint="put a token into it, or remove it")
    if any(c.isspace() for c in token):
        raise _no_token(place, "it contains a space or a line break")
    if not token.isascii() or not token.isprintable():
        raise _no_token(place, "it contains a character that is not printable ASCII")
    if len(token) < shortest:
        raise InvalidInput(
            f"{place} holds a token of fewer than {shortest} characters", hint="make one with 'openssl rand -hex 16'"
        )
    return token


def plain_password(text: str, place: str) -> str:
    """The password in `text`, which may contain any character but line breaks; one at its end is removed."""
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        raise InvalidInput(f"{place} is empty", hint="put a password into it, or remove it")
    if not password.isprintable():
        raise InvalidInput(f"{place} holds no password: it contains a control character", hint="write it in one line")
    return password


def _no_token(place: str, why: str) -> InvalidInput:
    return InvalidInput(f"{place} holds no token: {why}", hint="a token is one word of printable characters")
