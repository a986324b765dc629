"""Whom a mirror's TLS certificate may be signed by: the system's authorities, and those of its own `ca_file`."""

import ssl
from functools import cache
from pathlib import Path

from p2pmodel.errors import InvalidInput


@cache
def context_with(ca_file: Path) -> ssl.SSLContext:
    """The default context that trusts the certificates in `ca_file` (PEM), too. Raises InvalidInput."""
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:
        reason = "there is no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidInput(f"ca_file {ca_file} cannot be used: {reason}") from None
    return context
