"""Settings of all HTTP servers."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_advertised, check_url
from p2pmodel.config.sections.section import Section, split_list


class HttpSettings(Section):
    """Access to the HTTP addresses of all servers, their limits, and TLS for the daemon's."""

    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """DNS names of these servers in addition to the machine's own; comma-separated in an environment variable."""
    public_url: str | None = None
    """URL of a mirror or a daemon's hub endpoint for clients of a reverse proxy, with its path; None: as requested, or
    as X-Forwarded-Proto, -Host and -Prefix of a proxy on this machine say."""
    allow_local_users: bool = False
    """Admit all users of this machine over loopback, not only the server's own user and root."""
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks of reverse proxies, as 10.0.0.1 or 10.1.0.0/16. The client of a request from there is the right-most
    address in X-Forwarded-For or Forwarded that is not in them; each must append its client to one of these headers.
    Comma-separated in an environment variable."""
    advertise: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or names by which clients reach a coordinator or mirror, ADDRESS or ADDRESS:PORT; the first one stands
    in its URLs. Empty: the address that it listens on; on all addresses, those of this machine. Comma-separated in an
    environment variable."""

    tls_certificate: Path | None = None
    """PEM file with the server certificate and its chain; None: plain HTTP."""
    tls_key: Path | None = None
    """PEM file with the private key of the certificate."""
    tls_client_ca: Path | None = None
    """PEM file of the authorities that must have signed each client's certificate; None: no client certificates."""
    max_connections: int = Field(default=4096, ge=1)
    """Open connections of one listener, at most a sixth of the open files that the system allows."""
    max_connections_per_address: int = Field(default=1024, ge=1)
    """Open connections from one address, at most a quarter of all that the listener admits."""
    max_requests_per_second: float = Field(default=1000.0, ge=0)
    """Requests/s from one address, long-term average; 0: unlimited."""
    header_timeout: float = Field(default=15.0, gt=0)
    """Seconds for the TLS handshake, and for the header of a request."""
    body_timeout: float = Field(default=60.0, gt=0)
    """Seconds for the body of a request."""
    stall_timeout: float = Field(default=120.0, ge=0.1)
    """Seconds without the client reading after which its connection is closed."""

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(text)) for text in value)

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value)

    @field_validator("advertise", mode="before")
    @classmethod
    def _split_advertise(cls, value: Any) -> Any:
        return split_list(value, ",")

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return check_advertised(value, names=True)

    @property
    def unpaced(self) -> "HttpSettings":
        """The same limits without a request rate."""
        return self.model_copy(update={"max_requests_per_second": 0})

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients need a certificate."""
        return self.tls_client_ca is not None
