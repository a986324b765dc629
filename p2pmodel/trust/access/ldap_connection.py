"""A connection to an LDAP server over TLS, and the end of it that python-ldap has.

TLS is Python's own, on the event loop: libldap's waits for a silent server without a bound, and gives no reason when it
fails. What python-ldap sends and receives passes a pair of sockets in this process.
"""

import asyncio
import os
import re
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ldap

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput

START_TLS = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
"""The request of RFC 4511, 4.14, with message number 1."""
_AGREED = re.compile(rb"\x78(?:[\x00-\x7f]|\x81.|\x82..|\x84.{4})\x0a\x01\x00", re.DOTALL)
"""An extended response with result code 0, success: its tag, a length in one of its forms, an enumeration."""
_NOWHERE = "ldapi://%2Fdev%2Fnull%2Fnone"
"""Where libldap goes by itself when the connection has ended: else it sent the next password without TLS."""
_BLOCK = 1 << 16


class Unreachable(Exception):
    """There is no connection over TLS; the text is the reason."""


class LdapConnection:
    """An open connection. `library` is python-ldap's end. Its methods block; `close` ends what they wait for."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ours, theirs = socket.socketpair()
        self._ours.setblocking(False)
        self.library: Any = ldap.initialize(_NOWHERE, fileno=theirs.detach())
        self._pumps = [asyncio.create_task(self._outwards()), asyncio.create_task(self._inwards())]

    @classmethod
    async def open(cls, url: str, ca_file: Path | None) -> "LdapConnection":
        """Connect to `url`, and begin TLS. The caller bounds the time. Raises Unreachable; InvalidInput for a
        `ca_file` that cannot be used."""
        parts = urlsplit(url)
        secure, host = parts.scheme == "ldaps", parts.hostname or ""
        context = await asyncio.to_thread(_trusting, ca_file)
        try:
            reader, writer = await asyncio.open_connection(
                host, parts.port or (636 if secure else 389), ssl=context if secure else None
            )
            if not secure:
                await _start_tls(reader, writer, context, host)
        except ssl.SSLCertVerificationError as error:
            reason = f"its certificate is not trusted: {printable(error.verify_message, 80)}"
        except ssl.SSLError as error:
            reason = f"TLS fails: {printable((error.reason or 'it ends the connection').lower().replace('_', ' '), 80)}"
        except socket.gaierror as error:
            reason = f"its name is not known: {printable(error.strerror or 'no address', 80)}"
        except (OSError, EOFError) as error:
            number = getattr(error, "errno", None)
            reason = os.strerror(number) if number else "it ends the connection"
        else:
            return cls(reader, writer)
        raise Unreachable(reason)

    async def close(self) -> None:
        """End it. What python-ldap waits for in another thread fails at once."""
        self._end()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        with suppress(OSError):
            await self._writer.wait_closed()

    def _end(self) -> None:
        self._ours.close()
        self._writer.transport.abort()

    async def _outwards(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):
                while data := await loop.sock_recv(self._ours, _BLOCK):
                    self._writer.write(data)
                    await self._writer.drain()
        finally:
            self._end()

    async def _inwards(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            with suppress(OSError):
                while data := await self._reader.read(_BLOCK):
                    await loop.sock_sendall(self._ours, data)
        finally:
            self._end()


async def _start_tls(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext, host: str
) -> None:
    """Begin TLS on a plain connection, or end it. Nothing but the request for TLS is sent before."""
    refusal: Exception | None = None
    try:
        writer.write(START_TLS)
        answer = await reader.read(_BLOCK)
        if _AGREED.search(answer):
            await writer.start_tls(context, server_hostname=host)
            return
        refusal = Unreachable("it refuses StartTLS") if answer else EOFError()
    finally:
        if writer.get_extra_info("ssl_object") is None:
            writer.transport.abort()
    raise refusal


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    """A context that trusts the authorities in `ca_file` alone."""
    try:
        return ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
    except OSError as error:
        reason = "there is no PEM certificate in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise InvalidInput(f"ldap.ca_file {ca_file} cannot be used: {reason}") from None
