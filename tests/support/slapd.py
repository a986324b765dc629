"""A real slapd on free ports of 127.0.0.1: TLS only, users and groups of a small organisation."""

import base64
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from p2pmodel.config.sections.trust import LdapSettings
from tests.support.certificates import authority
from tests.support.eventually import PATIENCE

SLAPD = shutil.which("slapd") or ("/usr/sbin/slapd" if Path("/usr/sbin/slapd").exists() else "")
BASE = "dc=example,dc=org"
PEOPLE = f"ou=people,{BASE}"
GROUPS = f"ou=groups,{BASE}"
ROOT_PASSWORD = "of-the-test"

_CONFIG = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/slapd.pid
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/ca.pem
TLSCertificateKeyFile {folder}/key.pem
security simple_bind=128
database mdb
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw of-the-test
directory {folder}/db
overlay memberof
memberof-group-oc groupOfNames
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"""


class Slapd:
    """A slapd with the entries that `made` has put into the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain, self.tls = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = f"ldap://127.0.0.1:{self.plain} ldaps://127.0.0.1:{self.tls}"
        command = [SLAPD, "-f", str(self.folder / "slapd.conf"), "-h", where, "-d", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.tls), 1.0):
                return
            assert time.monotonic() < until, "slapd does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self, *, starttls: bool = False) -> str:
        """The URL that clients use."""
        return f"ldap://127.0.0.1:{self.plain}" if starttls else f"ldaps://127.0.0.1:{self.tls}"

    def settings(self, *, starttls: bool = False, **more: object) -> LdapSettings:
        """Settings for this server."""
        plain = {"url": self.url(starttls=starttls), "ca_file": self.folder / "ca.pem"}
        return LdapSettings.model_validate(plain | {"user_dn": f"uid={{user}},{PEOPLE}"} | more)


def made(folder: Path, entries: Iterable[dict[str, list[str]]]) -> Slapd:
    """A slapd in `folder` with the organisation's folders and `entries`; it does not run yet."""
    (folder / "db").mkdir()
    authority(folder)
    (folder / "slapd.conf").write_text(_CONFIG.format(folder=folder))
    above = [
        {"dn": [BASE], "objectClass": ["dcObject", "organization"], "o": ["Example"], "dc": ["example"]},
        *({"dn": [f"ou={name},{BASE}"], "objectClass": ["organizationalUnit"], "ou": [name]} for name in FOLDERS),
    ]
    lines = "\n\n".join(_ldif(entry) for entry in (*above, *entries))
    (folder / "entries.ldif").write_text(lines)
    add = [SLAPD, "-Ta", "-f", str(folder / "slapd.conf"), "-l", str(folder / "entries.ldif")]
    done = subprocess.run(add, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return Slapd(folder)


FOLDERS = ("people", "groups", "printers")


def user(name: str, dn: str = "", *groups: str) -> dict[str, list[str]]:
    """The user `name` with the password NAME-pw; `groups`: what its entry says."""
    where = dn or f"uid={name},{PEOPLE}"
    entry = {"dn": [where], "objectClass": ["inetOrgPerson"], "uid": [name], "cn": [name], "sn": ["x"]}
    return entry | {"userPassword": [f"{name}-pw"], "memberOf": list(groups)}


def group(dn: str, name: str, *members: str) -> dict[str, list[str]]:
    """A group with members, by distinguished names."""
    return {"dn": [dn], "objectClass": ["groupOfNames"], "cn": [name], "member": list(members)}


def _ldif(entry: dict[str, list[str]]) -> str:
    pairs = [(name, base64.b64encode(value.encode()).decode()) for name, values in entry.items() for value in values]
    return "\n".join(f"{name}:: {value}" for name, value in pairs)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
