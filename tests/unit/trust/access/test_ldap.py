"""Users of a directory, with a real slapd: TLS only, wrong passwords, groups, caching, failures that stay closed."""

import asyncio
import base64
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from p2pmodel.config.sections.access import LdapSettings
from p2pmodel.core.network.rights import Presented
from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.trust.access.authoriser import UnknownCredential
from p2pmodel.trust.access.policy import Subject
from tests.support.certificates import authority
from tests.support.eventually import PATIENCE

SLAPD = shutil.which("slapd") or ("/usr/sbin/slapd" if Path("/usr/sbin/slapd").exists() else "")
pytest.importorskip("bonsai", reason="the extra ldap is not installed")
pytestmark = [
    pytest.mark.skipif(not SLAPD, reason="slapd is not installed"),
    # bonsai leaves two sockets of a failed connection to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

from p2pmodel.trust.access.ldap import LdapDirectory  # noqa: E402

CONFIG = """
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
directory {folder}/db
overlay memberof
memberof-group-oc groupOfNames
access to attrs=userPassword by anonymous auth by * none
access to * by users read by * none
"""
ENTRIES = """
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups
"""
USER = "\ndn: uid={name},ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: x\n"
GROUP = "\ndn: cn={name},ou=groups,dc=example,dc=org\nobjectClass: groupOfNames\ncn: {name}\n"
MEMBER = "member: uid={name},ou=people,dc=example,dc=org\n"
MANY = 50


class Server:
    """A slapd of one folder, on free ports of 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain, self.tls = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        where = f"ldap://127.0.0.1:{self.plain} ldaps://127.0.0.1:{self.tls}"
        command = [SLAPD, "-f", str(self.folder / "slapd.conf"), "-h", where, "-d", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.tls), 1.0):
                return
            assert time.monotonic() < until
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def settings(self, *, starttls: bool = False, **more: object) -> LdapSettings:
        url = f"ldap://127.0.0.1:{self.plain}" if starttls else f"ldaps://127.0.0.1:{self.tls}"
        plain = {"url": url, "ca_file": self.folder / "ca.pem", "user_dn": "uid={user},ou=people,dc=example,dc=org"}
        return LdapSettings.model_validate(plain | more)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("slapd")
    (made / "db").mkdir()
    authority(made)
    (made / "slapd.conf").write_text(CONFIG.format(folder=made))
    users = ["anna", "bert", *(f"user{number}" for number in range(MANY))]
    entries = ENTRIES + "".join(USER.format(name=name) + f"userPassword: {name}-pw\n" for name in users)
    entries += GROUP.format(name="ml") + MEMBER.format(name="anna")
    entries += GROUP.format(name="all") + "".join(MEMBER.format(name=name) for name in users)
    (made / "entries.ldif").write_text(entries)
    add = [SLAPD, "-Ta", "-f", str(made / "slapd.conf"), "-l", str(made / "entries.ldif")]
    subprocess.run(add, check=True, capture_output=True)
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    found = Server(folder)
    found.start()
    yield found
    found.stop()


def basic(name: str, password: str) -> Presented:
    return Presented("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())


def directory(settings: LdapSettings, ttl: float = 60.0) -> LdapDirectory:
    return LdapDirectory(settings, ttl=ttl)


@pytest.mark.parametrize("starttls", [False, True], ids=["ldaps", "StartTLS"])
async def test_a_user_logs_in_and_has_groups(server: Server, starttls: bool) -> None:
    at = directory(server.settings(starttls=starttls, group_base="ou=groups,dc=example,dc=org"))
    anna = Subject("user", "anna", frozenset({"ml", "all"}))
    assert await at.subject(basic("anna", "anna-pw")) == anna
    hub_client = Presented("Bearer anna:anna-pw")
    assert at.recognises(hub_client)
    assert await at.subject(hub_client) == anna
    assert not at.recognises(Presented("Bearer hf_token"))


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("anna", "wrong"),
        ("nobody", "anna-pw"),
        ("anna", ""),
        ("", ""),
        ("anna", "anna-pw\0"),
        ("anna,ou=people", "anna-pw"),
        ("*", "anna-pw"),
        ("anna)(uid=*", "anna-pw"),
    ],
)
async def test_a_wrong_or_empty_password_and_a_strange_name_are_refused(
    server: Server, name: str, password: str
) -> None:
    with pytest.raises(UnknownCredential):
        await directory(server.settings()).subject(basic(name, password))


async def test_a_certificate_of_another_authority_or_name_is_refused(server: Server, tmp_path: Path) -> None:
    other, _ = authority(tmp_path)
    for settings in (
        server.settings(ca_file=other),
        server.settings(starttls=True, ca_file=other),
        server.settings(url=f"ldaps://localhost:{server.tls}"),
    ):
        with pytest.raises(Unavailable, match="cannot be asked"):
            await directory(settings).subject(basic("anna", "anna-pw"))
    with pytest.raises(InvalidInput, match=r"ldap\.ca_file"):
        await directory(server.settings(ca_file=tmp_path / "none.pem")).subject(basic("anna", "anna-pw"))


async def test_without_the_server_only_recent_logins_count(server: Server) -> None:
    kept, forgetful = directory(server.settings()), directory(server.settings(), ttl=0.0)
    for at in (kept, forgetful):
        await at.subject(basic("anna", "anna-pw"))
    server.stop()
    assert (await kept.subject(basic("anna", "anna-pw"))).name == "anna"
    for at, name in ((kept, "bert"), (forgetful, "anna")):
        with pytest.raises(Unavailable) as failed:
            await at.subject(basic(name, f"{name}-pw"))
        assert f"{name}-pw" not in str(failed.value)
    server.start()
    assert (await forgetful.subject(basic("anna", "anna-pw"))).name == "anna"


async def test_a_server_that_does_not_answer_is_left_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = {"url": f"ldaps://127.0.0.1:{silent.getsockname()[1]}", "user_dn": "uid={user}", "timeout": 1.0}
        with pytest.raises(Unavailable):
            await directory(LdapSettings.model_validate(settings)).subject(basic("anna", "anna-pw"))


async def test_many_logins_run_in_threads_and_the_event_loop_goes_on(server: Server) -> None:
    at, loop_thread = directory(server.settings()), threading.get_ident()
    bound_in: set[int] = set()
    now = most = 0
    bind = at._bind

    def recorded(name: str, password: str) -> Subject:
        nonlocal now, most
        bound_in.add(threading.get_ident())
        now += 1
        most = max(most, now)
        try:
            return bind(name, password)
        finally:
            now -= 1

    at._bind = recorded  # type: ignore[method-assign]
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(
        *(at.subject(basic(f"user{number}", f"user{number}-pw")) for number in range(MANY)),
        *(at.subject(basic(f"user{number}", "wrong")) for number in range(10)),
        return_exceptions=True,
    )
    ticking.cancel()
    assert [each.name for each in found[:MANY] if isinstance(each, Subject)] == [f"user{n}" for n in range(MANY)]
    assert all(isinstance(each, UnknownCredential) for each in found[MANY:])
    assert loop_thread not in bound_in, "a TLS handshake takes tens of milliseconds"
    assert most <= server.settings().connections
    assert ticks > MANY
