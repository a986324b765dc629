"""The TLS context of a server from the files of its settings."""

import ssl

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.errors import InvalidInput
from p2pmodel.service.roles.reload import Reload
from p2pmodel.tls import renew, server_context


def tls_context(http: HttpSettings, reload: Reload) -> ssl.SSLContext | None:
    """The context with the certificate of the settings, which a reload renews; None without one.

    Raises InvalidInput.
    """
    if http.tls_certificate is None or http.tls_key is None:
        if http.tls_certificate or http.tls_key or http.tls_client_ca:
            raise InvalidInput("TLS needs a certificate and its key", hint="give --tls-cert and --tls-key")
        return None
    files = http.tls_certificate, http.tls_key, http.tls_client_ca
    context = server_context(*files)
    reload.file("TLS certificate", lambda: renew(context, *files))
    return context
