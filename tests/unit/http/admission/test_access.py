"""The request guard as a pure decision: names, origins, sites and forms, for servers on and off loopback. Tokens."""

import base64
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import P2PModelError
from p2pmodel.http.admission.access import RequestGuard, is_bearer, is_token

LOOPBACK = ListenAddress("127.0.0.1", 6969)
CLUSTER = ListenAddress("10.0.0.7", 6969)
BROWSER = {"Accept-Language": "en"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


def status(
    guard: RequestGuard,
    at: ListenAddress = LOOPBACK,
    method: str = "GET",
    path: str = "/catalog",
    *,
    tls: bool = False,
    host: str | None = "127.0.0.1:6969",
    **headers: str,
) -> int:
    """The status of a request's refusal; 200 if it is admitted."""
    given = {name.replace("_", "-"): value for name, value in headers.items()} | ({"Host": host} if host else {})
    try:
        guard.at(at, tls=tls).check(method, path, given)
    except P2PModelError as error:
        return error.http_status
    return 200


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]:80", "localhost:1", "LOCALHOST", "localhost.", "10.0.0.7:6969", None]
)
def test_addresses_and_the_machines_own_names_are_accepted(host: str | None) -> None:
    assert status(RequestGuard(), host=host) == 200
    assert status(RequestGuard(), host=socket.gethostname()) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "[::1", "a:b:c", "a@127.0.0.1", "x/y"]
)
@pytest.mark.parametrize("secured", [False, True])
def test_on_loopback_no_other_name_is_accepted(host: str, secured: bool) -> None:
    assert status(RequestGuard(secured=secured), host=host) == 403


def test_names_of_the_settings_and_of_the_public_url_are_accepted() -> None:
    http = HttpSettings.model_validate({"allowed_hosts": "Mirror.example, other.example"})
    guard = RequestGuard.of(http, secured=False, url="https://seed.example:8443/x")
    for name in ("mirror.example", "other.example:80", "SEED.example"):
        assert status(guard, host=name) == 200
    assert status(guard, host="evil.example") == 403


def test_off_loopback_a_name_is_accepted_where_a_browser_gains_nothing_by_it() -> None:
    open_server, secured = RequestGuard(), RequestGuard(secured=True)
    assert status(open_server, CLUSTER, host="coordinator.cluster.local:6969") == 200
    assert status(open_server, CLUSTER, host="evil.example", **BROWSER) == 403
    assert status(secured, CLUSTER, host="node7.cluster", **BROWSER) == 200
    assert status(secured, LOOPBACK, tls=True, host="node7.cluster", **BROWSER) == 200, (
        "its certificate is for the name"
    )


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8080", "", "ftp://127.0.0.1:6969"])
@pytest.mark.parametrize("path", ["/catalog", "/"])
def test_another_origin_is_refused_on_every_path(origin: str, path: str) -> None:
    guard = RequestGuard(secured=True, public=("/",))
    assert status(guard, path=path, Origin=origin) == 403
    assert status(guard, path=path, Origin="http://127.0.0.1:6969") == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site", "unknown"])
def test_requests_of_other_sites_are_refused_but_links_to_public_pages(site: str) -> None:
    guard = RequestGuard(public=("/",))
    assert status(guard, Sec_Fetch_Site=site) == 403
    assert status(guard, path="/", Sec_Fetch_Site=site) == 200
    assert status(guard, method="POST", path="/", Sec_Fetch_Site=site) == 403
    assert status(guard, Sec_Fetch_Site="same-origin") == status(guard, Sec_Fetch_Site="none") == 200


def test_a_browser_that_does_not_state_the_site_gets_nothing_without_a_credential() -> None:
    """Browsers send no Sec-Fetch-Site over plain HTTP off loopback, and no Origin with an image."""
    assert status(RequestGuard(), CLUSTER, host="10.0.0.7:6969", **BROWSER) == 403
    assert status(RequestGuard(secured=True), CLUSTER, host="10.0.0.7:6969", **BROWSER) == 200
    assert status(RequestGuard(public=("/metrics",)), CLUSTER, path="/metrics", host="10.0.0.7", **BROWSER) == 200


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Text/Plain"])
def test_forms_change_nothing(kind: str) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert status(RequestGuard(), method=method, Content_Type=kind) == 415
    assert status(RequestGuard(forms=True), method="POST", Content_Type=kind) == 200
    assert status(RequestGuard(forms=True), method="POST", Content_Type=kind, Sec_Fetch_Site="none") == 415
    assert status(RequestGuard(), method="POST", Content_Type="application/json") == 200


@given(host=st.text(), origin=st.none() | st.text(), site=st.none() | st.text(), kind=st.text(), secured=st.booleans())
def test_any_header_is_decided(host: str, origin: str | None, site: str | None, kind: str, secured: bool) -> None:
    values = {"Origin": origin, "Sec_Fetch_Site": site, "Content_Type": kind}
    headers = {name: value for name, value in values.items() if value is not None}
    decided = status(RequestGuard(secured=secured), method="PUT", host=host, **headers)
    assert decided in (200, 403, 415)
    if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
        assert decided == 403


def test_local_users_are_admitted_by_a_credential_or_by_the_setting() -> None:
    assert RequestGuard.of(HttpSettings(), secured=False, own_user=True).own_user
    assert not RequestGuard.of(HttpSettings(), secured=True, own_user=True).own_user
    assert not RequestGuard.of(HttpSettings(allow_local_users=True), secured=False, own_user=True).own_user


@pytest.mark.parametrize(
    ("authorization", "right"),
    [
        ("Bearer t0ken", True),
        ("Basic " + base64.b64encode(b"anyone:t0ken").decode(), True),
        ("basic " + base64.b64encode(b":t0ken").decode(), True),
        ("Basic " + base64.b64encode(b"t0ken:").decode(), False),
        ("Basic " + base64.b64encode(b"t0ken").decode(), False),
        ("Basic " + base64.b64encode(b"a:b:t0ken").decode(), False),
        ("Basic " + base64.b64encode(b"a:\xff").decode(), False),
        ("Basic t0ken", False),
        ("Basic \xff", False),
        ("Basic", False),
        ("Bearer other", False),
        ("t0ken", False),
        ("", False),
    ],
)
def test_a_token_may_be_a_password(authorization: str, right: bool) -> None:
    assert is_token(authorization, "t0ken") == right
    assert is_bearer(authorization, "t0ken") == (authorization == "Bearer t0ken")


@given(st.text())
def test_no_header_is_an_error(authorization: str) -> None:
    assert not is_token(authorization, "t0ken" * 9)
    assert not is_token(f"Basic {authorization}", "t0ken" * 9)
