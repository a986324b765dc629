"""TLS contexts from configured files (additional authorities, own certificates), and those of private swarms."""

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from p2pmodel.core.files.own_files import opened
from p2pmodel.errors import InvalidInput
from p2pmodel.os_errors import descriptor_path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of a client of servers over https (PEM), each optional: authorities trusted besides the system's, its
    own certificate, and the certificate's key."""

    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @property
    def context(self) -> ssl.SSLContext | Literal[True]:
        """The context of requests; True for the default one. Raises InvalidInput for a file that cannot be used."""
        return context_with(self.ca_file, self.certificate, self.key) if self.ca_file or self.certificate else True


NO_FILES = TlsFiles()


@cache
def context_with(ca_file: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """As `client_context`, one for the same files, until the cache is cleared."""
    return client_context(ca_file, certificate, key)


def client_context(ca_file: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """A client context that also trusts `ca_file` and presents `certificate`, if given. Raises InvalidInput."""
    context = ssl.create_default_context()
    if ca_file is not None:
        _trust(context, ca_file, "ca_file")
    if certificate is not None:
        _present(context, certificate, key or certificate)
    return context


def server_context(
    certificate: Path, key: Path, client_ca: Path | None = None, *, optional: bool = False
) -> ssl.SSLContext:
    """A server context with `certificate` (PEM, with its chain). With `client_ca` it requires client certificates of
    those authorities; `optional`: a client may have none, and the application decides. Raises InvalidInput."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _present(context, certificate, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_OPTIONAL if optional else ssl.CERT_REQUIRED
        _trust(context, client_ca, "tls_client_ca")
    return context


def renew(context: ssl.SSLContext, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
    """Let a context of `server_context` use what the files contain now, for new connections.

    Authorities of clients are added; those that are gone from the file are trusted until a restart. Raises
    InvalidInput, and leaves the context as it is.
    """
    server_context(certificate, key, client_ca)
    _present(context, certificate, key)
    if client_ca is not None:
        _trust(context, client_ca, "tls_client_ca")


class MutualTls:
    """TLS 1.3 between hosts with certificates of one authority (PEM) for the same `name`: each presents its own, and
    verifies that of the other one. `present` comes before the first connection.

    No session is resumed: that would pass over the check of a certificate which has expired since.
    """

    def __init__(self, authority: str, name: str) -> None:
        self.name = name
        self.client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """Connect with `name` as the host name."""
        self.server = _demanding_server()
        for context in (self.client, self.server):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            try:
                context.load_verify_locations(cadata=authority)
            except (ssl.SSLError, ValueError):
                raise InvalidInput("the authority of a private swarm is not a PEM certificate") from None

    def present(self, certificate: str, key: str) -> None:
        """Present `certificate` (PEM) with its private key in new connections. Raises InvalidInput."""
        try:
            with _in_memory(f"{certificate}\n{key}") as path:
                self.client.load_cert_chain(path, password="")
                self.server.load_cert_chain(path, password="")
        except (ssl.SSLError, ValueError):
            raise InvalidInput("the certificate of this node and its key do not belong together") from None


def server_of(members: Callable[[str], MutualTls | None]) -> ssl.SSLContext:
    """A server context that answers a client by the name that it asks for (SNI), with the contexts that `members`
    returns, and ends the handshakes of other clients."""
    context = _demanding_server()

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> int | None:
        member = members(name or "")
        if member is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = member.server
        return None

    context.sni_callback = choose
    return context


def _demanding_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """A path under which OpenSSL, which reads files alone, finds `text`. It is on no disk."""
    descriptor = os.memfd_create("pem")
    try:
        os.write(descriptor, text.encode())
        yield _path_of(descriptor)
    finally:
        os.close(descriptor)


def _present(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Load `certificate` into `context`. Raises InvalidInput for files that are unreadable, not PEM, or do not match.
    The key must have no pass phrase, and other users must not be able to read it."""
    with opened(certificate, "TLS certificate") as public, opened(key, "TLS key", secret=True) as private:
        try:
            # Without a password argument OpenSSL would prompt on the terminal.
            context.load_cert_chain(_path_of(public), _path_of(private), password="")
        except (ssl.SSLError, ValueError, OSError) as error:
            mismatch = getattr(error, "reason", None) == "KEY_VALUES_MISMATCH"
            why = "they do not belong together" if mismatch else "one is no PEM file of its kind, or has a pass phrase"
            raise InvalidInput(f"the TLS certificate {certificate} and key {key} cannot be used: {why}") from None


def _trust(context: ssl.SSLContext, ca_file: Path, name: str) -> None:
    with opened(ca_file, name) as descriptor:
        try:
            context.load_verify_locations(cafile=_path_of(descriptor))
        except OSError as error:
            reason = "there is no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidInput(f"the {name} {ca_file} cannot be used: {reason}") from None


def _path_of(descriptor: int) -> str:
    """The path under which OpenSSL reads the file that was judged."""
    return str(descriptor_path(descriptor))
