"""Users of a directory, with a real slapd: TLS only, wrong passwords, groups, caching, failures that stay closed."""

import asyncio
import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pmodel.config.sections.trust import LdapSettings
from p2pmodel.core.network.rights import RequestCredentials
from p2pmodel.errors import InvalidInput, Unavailable, UnknownCredential
from p2pmodel.trust.access.policy import Subject
from tests.support.certificates import authority
from tests.support.opened_directories import opened
from tests.support.slapd import BASE, GROUPS, PEOPLE, ROOT_PASSWORD, SLAPD, Slapd, group, made, user

pytest.importorskip("ldap", reason="the extra ldap is not installed")
pytestmark = [pytest.mark.skipif(not SLAPD, reason="slapd is not installed")]

from p2pmodel.trust.access.ldap import LdapDirectory  # noqa: E402
from p2pmodel.trust.access.ldap_connection import LdapConnection  # noqa: E402
from p2pmodel.trust.access.ldap_names import UserPattern  # noqa: E402
from p2pmodel.trust.access.ldap_server import LdapServer  # noqa: E402

MANY = 50
AWKWARD = 'o\'brien, "x" (y)*+=<z>;#\\ é'
ANNA, BERT = f"uid=anna,{PEOPLE}", f"uid=bert,{PEOPLE}"
IN_GROUPS = f"ou=groups,{BASE}"


def entries() -> list[dict[str, list[str]]]:
    people = UserPattern(f"uid={{user}},{PEOPLE}")
    of_groups = UserPattern(f"cn={{user}},{GROUPS}")
    names = ["bert", *(f"user{number}" for number in range(MANY))]
    return [
        user("anna", ANNA, f"cn=ml,{GROUPS}", f"cn=admins,ou=printers,{BASE}"),
        *(user(name) for name in names),
        user(AWKWARD, people.dn(AWKWARD)),
        group(f"cn=ml,{GROUPS}", "ml", ANNA),
        group(f"cn=all,{GROUPS}", "all", ANNA, *(people.dn(name) for name in names)),
        group(f"cn=admins,ou=printers,{BASE}", "admins", ANNA),
        group(of_groups.dn(AWKWARD), AWKWARD, people.dn(AWKWARD)),
        group(f"cn=science,{GROUPS}", "science", f"cn=ml,{GROUPS}", of_groups.dn(AWKWARD)),
        group(f"cn=ring-1,{GROUPS}", "ring-1", f"cn=science,{GROUPS}", f"cn=ring-2,{GROUPS}"),
        group(f"cn=ring-2,{GROUPS}", "ring-2", f"cn=ring-1,{GROUPS}"),
    ]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Slapd:
    return made(tmp_path_factory.mktemp("slapd"), entries())


@pytest.fixture
def server(filled: Slapd) -> Iterator[Slapd]:
    filled.start()
    yield filled
    filled.stop()


def basic(name: str, password: str) -> RequestCredentials:
    return RequestCredentials("Basic " + base64.b64encode(f"{name}:{password}".encode()).decode())


def directory(settings: LdapSettings, ttl: float = 60.0) -> LdapDirectory:
    return opened(LdapDirectory(settings, ttl=ttl))


@pytest.mark.parametrize("starttls", [False, True], ids=["ldaps", "StartTLS"])
async def test_a_user_logs_in_and_has_groups(server: Slapd, starttls: bool) -> None:
    at = directory(server.settings(starttls=starttls, group_base=IN_GROUPS, group_depth=1))
    anna = Subject("user", "anna", frozenset({"ml", "all"}))
    assert await at.subject(basic("anna", "anna-pw")) == anna
    hub_client = RequestCredentials("Bearer anna:anna-pw")
    assert at.recognises(hub_client)
    assert await at.subject(hub_client) == anna
    assert not at.recognises(RequestCredentials("Bearer hf_token"))


@pytest.mark.parametrize(
    ("name", "more", "groups"),
    [
        ("anna", {}, {"ml", "admins"}),
        ("anna", {"group_base": IN_GROUPS, "group_depth": 1}, {"ml", "all"}),
        ("anna", {"group_base": IN_GROUPS, "group_depth": 2}, {"ml", "all", "science"}),
        ("anna", {"group_base": IN_GROUPS}, {"ml", "all", "science", "ring-1", "ring-2"}),
        ("bert", {"group_base": IN_GROUPS}, {"all"}),
        (AWKWARD, {"group_base": IN_GROUPS, "group_depth": 2}, {AWKWARD, "science"}),
    ],
    ids=["own entry", "direct", "two levels", "a ring", "one group", "awkward names"],
)
async def test_groups_of_groups_count_below_their_base_alone(
    server: Slapd, name: str, more: dict[str, Any], groups: set[str]
) -> None:
    found = await directory(server.settings(**more)).subject(basic(name, f"{name}-pw"))
    assert found == Subject("user", name, frozenset(groups))


async def test_a_user_has_the_name_that_the_server_writes(server: Slapd) -> None:
    """Else a rule that denies `user:anna` would not find `ANNA`."""
    for typed in ("ANNA", "Anna", "ａｎｎａ"):
        assert (await directory(server.settings()).subject(basic(typed, "anna-pw"))).name == "anna"


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
        ("anna\0", "anna-pw"),
        ("anna ", "anna-pw"),
        ("a" * 129, "anna-pw"),
    ],
)
async def test_a_wrong_or_empty_password_and_a_strange_name_are_refused(
    server: Slapd, name: str, password: str
) -> None:
    with pytest.raises(UnknownCredential):
        await directory(server.settings()).subject(basic(name, password))


async def test_a_login_after_a_refused_one_on_the_same_connection_is_its_own(server: Slapd) -> None:
    at = directory(server.settings(connections=1, group_base=IN_GROUPS), ttl=0.0)
    for _ in range(3):
        assert "ml" in (await at.subject(basic("anna", "anna-pw"))).groups
        with pytest.raises(UnknownCredential):
            await at.subject(basic("bert", "anna-pw"))
        assert await at.subject(basic("bert", "bert-pw")) == Subject("user", "bert", frozenset({"all"}))


async def test_a_certificate_of_another_authority_or_name_is_refused(server: Slapd, tmp_path: Path) -> None:
    other, _ = authority(tmp_path)
    for settings, reason in (
        (server.settings(ca_file=other), "certificate is not trusted"),
        (server.settings(starttls=True, ca_file=other), "certificate is not trusted"),
        (server.settings(url=f"ldaps://localhost:{server.tls}"), "certificate is not trusted: Hostname mismatch"),
    ):
        with pytest.raises(Unavailable, match=f"cannot be asked.*{reason}"):
            await directory(settings).subject(basic("anna", "anna-pw"))
    with pytest.raises(InvalidInput, match=r"ldap\.ca_file"):
        await directory(server.settings(ca_file=tmp_path / "none.pem")).subject(basic("anna", "anna-pw"))


async def test_without_the_server_only_recent_logins_count(server: Slapd) -> None:
    kept, forgetful = directory(server.settings()), directory(server.settings(), ttl=0.0)
    for at in (kept, forgetful):
        await at.subject(basic("anna", "anna-pw"))
    server.stop()
    assert (await kept.subject(basic("anna", "anna-pw"))).name == "anna"
    for at, name in ((kept, "bert"), (forgetful, "anna")):
        with pytest.raises(Unavailable, match="Connection refused") as failed:
            await at.subject(basic(name, f"{name}-pw"))
        assert f"{name}-pw" not in str(failed.value)
    server.start()
    assert (await forgetful.subject(basic("anna", "anna-pw"))).name == "anna"


async def test_a_login_survives_a_server_that_has_ended_the_waiting_connection(server: Slapd) -> None:
    at = directory(server.settings(connections=1))
    await at.subject(basic("anna", "anna-pw"))
    server.stop()
    server.start()
    assert (await at.subject(basic("bert", "bert-pw"))).name == "bert"


async def test_a_group_that_the_directory_takes_away_ends_with_the_remembered_login(server: Slapd) -> None:
    now = [0.0]
    at = opened(LdapDirectory(server.settings(group_base=IN_GROUPS), ttl=60.0, clock=lambda: now[0]))
    group_of_user7 = f"dn: cn=all,{GROUPS}\nchangetype: modify\n{{}}: member\nmember: uid=user7,{PEOPLE}\n"
    assert (await at.subject(basic("user7", "user7-pw"))).groups == {"all"}
    modify(server, group_of_user7.format("delete"))
    assert (await at.subject(basic("user7", "user7-pw"))).groups == {"all"}
    now[0] = 61.0
    assert (await at.subject(basic("user7", "user7-pw"))).groups == frozenset()
    modify(server, group_of_user7.format("add"))


def modify(server: Slapd, change: str) -> None:
    who = ["-x", "-H", server.url(), "-D", f"cn=admin,{BASE}", "-w", ROOT_PASSWORD]
    environment = {"LDAPTLS_CACERT": str(server.folder / "ca.pem")}
    done = subprocess.run(
        ["ldapmodify", *who], input=change.encode(), env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


async def test_many_logins_share_a_few_connections(server: Slapd) -> None:
    settings, connected = server.settings(connections=4), []

    async def connect(url: str, ca_file: Path | None) -> LdapConnection:
        connected.append(await LdapConnection.open(url, ca_file))
        return connected[-1]

    at = opened(LdapDirectory(settings, ttl=60.0, server=LdapServer(settings, connect=connect)))
    found = await asyncio.gather(
        *(at.subject(basic(f"user{number}", f"user{number}-pw")) for number in range(MANY)),
        *(at.subject(basic(f"user{number}", "wrong")) for number in range(10)),
        return_exceptions=True,
    )
    assert [each.name for each in found[:MANY] if isinstance(each, Subject)] == [f"user{n}" for n in range(MANY)]
    assert all(isinstance(each, UnknownCredential) for each in found[MANY:])
    assert 0 < len(connected) <= settings.connections


@pytest.mark.parametrize(
    "more", [{"user_dn": "{user}"}, {"user_dn": "uid=x,{user}"}, {"user_dn": "{user}=x,dc=a"}, {"group_base": "groups"}]
)
def test_settings_that_are_no_distinguished_names_are_refused(more: dict[str, str]) -> None:
    plain = {"url": "ldaps://127.0.0.1:9", "user_dn": "uid={user},dc=a"}
    with pytest.raises(InvalidInput, match=r"ldap\.(user_dn|group_base) is"):
        directory(LdapSettings.model_validate(plain | more))
