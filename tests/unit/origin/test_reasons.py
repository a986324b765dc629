import errno
import socket
import ssl

import aiohttp
import pytest

from p2pmodel.origin.failures import failure_of, reason_of


def certificate_error(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def caused(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


class ConnectTimeout(Exception):
    """Has the name of httpx's error."""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (certificate_error(9, "certificate is not yet valid"), "certificate not yet valid: check the clock"),
        (certificate_error(10, "certificate has expired"), "certificate expired: check the clock, or renew it"),
        (certificate_error(18, "self-signed certificate"), "certificate not trusted (self-signed certificate)"),
        (
            aiohttp.ClientConnectorCertificateError(None, certificate_error(9, "")),
            "certificate not yet valid: check the clock",
        ),
        (caused(RuntimeError("x"), certificate_error(9, "")), "certificate not yet valid: check the clock"),
        (caused(OSError("x"), socket.gaierror(-2, "Name or service not known")), "its name does not resolve (DNS)"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "connection refused"),
        (ConnectionResetError(), "connection lost"),
        (aiohttp.ServerDisconnectedError(), "connection lost"),
        (aiohttp.ClientPayloadError("short"), "connection lost"),
        (TimeoutError(), "timed out waiting for an answer"),
        (ConnectTimeout(), "timed out connecting"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to host"),
        (RuntimeError("secret"), "RuntimeError"),
    ],
)
def test_reasons(error, reason):
    assert reason_of(error) == reason


def test_a_timeout_is_slow_and_a_refusal_is_not():
    assert failure_of(TimeoutError()).slow
    assert not failure_of(ConnectionRefusedError()).slow


def test_a_cycle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert reason_of(first) == "ValueError"
