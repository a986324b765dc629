"""Checks of values that several settings share. They raise ValueError, which names the setting."""

import re
from urllib.parse import urlsplit

from p2pmodel.core.network.addresses import AdvertisedAddress, is_reachable
from p2pmodel.core.network.egress import Egress
from p2pmodel.core.network.urls import names_user, shown
from p2pmodel.errors import InvalidInput

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def check_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return a list of hosts and networks, or raise ValueError."""
    try:
        Egress.parse(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return value


def check_advertised(value: tuple[str, ...], *, names: bool) -> tuple[str, ...]:
    """Return a list of advertised addresses, or raise ValueError. `names`: DNS names are possible."""
    for text in value:
        try:
            host = AdvertisedAddress.parse(text).host
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        if not names and not is_reachable(host):
            raise ValueError(f"'{text}' is not an IP address: trackers list no names")
    return value


def check_bucket(value: str) -> str:
    """Return the address `s3://BUCKET[/PREFIX]` of a bucket without trailing slash, or raise ValueError."""
    parts = urlsplit(value) if has_port(value) else None
    if parts is None or not _BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment or "//" in parts.path:
        raise ValueError(f"'{shown(value)}' is not an address of a bucket such as s3://BUCKET/PREFIX")
    return value.rstrip("/")


def has_port(value: str) -> bool:
    """Whether a URL has no port, or a possible one."""
    try:
        port = urlsplit(value).port
    except ValueError:
        return False
    return port is None or port > 0


def check_url(value: str, *, instead: str = "a secret belongs into a token file") -> str:
    """Return an http(s) URL without trailing slash, or raise ValueError. `instead`: where user and password belong."""
    parts = urlsplit(value) if has_port(value) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"'{shown(value)}' is not an http:// or https:// URL")
    if names_user(value):
        raise ValueError(f"'{shown(value)}' contains a user name or password: {instead}")
    return value.rstrip("/")
