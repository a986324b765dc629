"""The TLS context of a server's addresses, from the files of the settings; a reload brings renewed files."""

import ssl

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.errors import InvalidInput
from p2pmodel.service.roles.reload import Reload
from p2pmodel.tls import renew, server_context


def listener_tls(http: HttpSettings, *, optional: bool = False) -> ssl.SSLContext | None:
    """The context of `http.tls_*`; None where no certificate is set.

    `optional`: clients without a certificate get through the handshake, and the application refuses them. Raises
    InvalidInput for files that cannot be used, and for settings of which one lacks another.
    """
    if http.tls_certificate is None or http.tls_key is None:
        if http.tls_certificate or http.tls_key or http.tls_client_ca:
            raise InvalidInput("TLS needs a certificate and its key", hint="give --tls-cert and --tls-key")
        return None
    return server_context(http.tls_certificate, http.tls_key, http.tls_client_ca, optional=optional)


def renew_on(reload: Reload, http: HttpSettings, context: ssl.SSLContext | None) -> None:
    """Let a `context` of `listener_tls` use renewed files after each reload."""
    certificate, key = http.tls_certificate, http.tls_key
    if context is not None and certificate is not None and key is not None:
        reload.file("TLS certificate", lambda: renew(context, certificate, key, http.tls_client_ca))


def tls_context(http: HttpSettings, reload: Reload) -> ssl.SSLContext | None:
    """As `listener_tls`, with renewed files after each reload."""
    context = listener_tls(http)
    renew_on(reload, http, context)
    return context
