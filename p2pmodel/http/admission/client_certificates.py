"""What stands in a client's certificate, which the TLS handshake has verified."""

import ssl
from dataclasses import dataclass

from aiohttp import web

from p2pmodel.core.content.names import printable

MOST_NAME = 64


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """`names`: the host names that it is for; `serial`: its number, hexadecimal; `expires`: seconds since 1970."""

    names: frozenset[str]
    serial: str
    expires: float


def client_certificate(request: web.Request) -> ClientCertificate | None:
    """The verified certificate of the client; None without one."""
    found = request.transport.get_extra_info("peercert") if request.transport else None
    if not found:
        return None
    names = frozenset(str(value) for kind, value in found.get("subjectAltName", ()) if kind == "DNS")
    return ClientCertificate(
        names, f"{int(found['serialNumber'], 16):x}", ssl.cert_time_to_seconds(str(found["notAfter"]))
    )


def certificate_name(request: web.Request) -> str:
    """The common name in the verified certificate of the client; "" without a certificate, or without a name."""
    found = request.transport.get_extra_info("peercert") if request.transport else None
    for attribute in (pair for group in (found or {}).get("subject", ()) for pair in group):
        if attribute[0] == "commonName":
            return printable(str(attribute[1]), MOST_NAME)
    return ""


def has_certificate(request: web.Request) -> bool:
    """Whether the client has presented a certificate of the authorities that the server trusts."""
    return bool(request.transport and request.transport.get_extra_info("peercert"))
