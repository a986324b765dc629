"""The name in a client's certificate, which the TLS handshake has verified."""

from aiohttp import web

from p2pmodel.core.content.names import printable

MOST_NAME = 64


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
