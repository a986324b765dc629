"""The folder of an authority: its root certificate and key, and the certificates that it has issued, as files."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.core.content.names import printable
from p2pmodel.core.files.private_files import private_folder, write_private
from p2pmodel.errors import Conflict, InvalidInput
from p2pmodel.os_errors import translated
from p2pmodel.trust.certificates.authority import Authority

CERTIFICATE, KEY = "ca.crt", "ca.key"


@dataclass(frozen=True, slots=True)
class IssuedFiles:
    """Where a certificate and its key are."""

    name: str
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class AuthorityFolder:
    """The folder `path`, of mode 0700; every file in it has mode 0600."""

    path: Path

    @property
    def certificate(self) -> Path:
        """The root certificate, for every node."""
        return self.path / CERTIFICATE

    @property
    def key(self) -> Path:
        """The root's key, for the coordinator alone."""
        return self.path / KEY

    @translated()
    def init(self, name: str, *, now: dt.datetime, days: int) -> None:
        """Make a new authority here. Raises Conflict where there is one: its certificates would be worth nothing."""
        if self.certificate.exists() or self.key.exists():
            raise Conflict(
                f"there is an authority in {printable(str(self.path))}", hint="give another folder with --folder"
            )
        private_folder(self.path)
        authority, key = Authority.new(name, now=now, days=days)
        write_private(self.key, key)
        write_private(self.certificate, authority.pem)

    @translated()
    def issue(self, name: str, alternatives: Sequence[str], *, now: dt.datetime, days: int) -> IssuedFiles:
        """Issue a certificate to `name.crt` with its key in `name.key`, in place of an earlier one.

        Raises InvalidInput for a name that is no file name, or without an authority.
        """
        if not name or name in (".", "..", "ca") or "/" in name or not name.isprintable():
            raise InvalidInput(f"'{printable(name)}' cannot name a certificate", hint="give a host name or an address")
        if not self.certificate.exists():
            raise InvalidInput(
                f"there is no authority in {printable(str(self.path))}", hint="make one with 'p2pmodel ca init'"
            )
        issued = Authority.read(self.certificate, self.key).issue(name, alternatives, now=now, days=days)
        files = IssuedFiles(name, self.path / f"{name}.crt", self.path / f"{name}.key")
        write_private(files.key, issued.key)
        write_private(files.certificate, issued.certificate)
        return files
