"""The URL of a server behind a reverse proxy: by its setting, by headers of a proxy on this machine, or as asked."""

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from p2pmodel.http.public_url import PUBLIC_URL, public_base, public_url


class Transport:
    def __init__(self, peer: str) -> None:
        self._peer = peer

    def get_extra_info(self, name: str) -> object:
        return (self._peer, 1) if name == "peername" else None


def asked(
    headers: dict[str, str], *, peer: str = "127.0.0.1", configured: str = "", path: str = "/a%20b?c=d"
) -> web.Request:
    app = web.Application()
    if configured:
        app[PUBLIC_URL] = configured
    headers = {"Host": "inside:8090"} | headers
    request = make_mocked_request("GET", path, headers, app=app, transport=Transport(peer))
    request._match_info = web.UrlMappingMatchInfo({}, None)  # type: ignore[assignment, arg-type]
    request._match_info.add_app(app)
    return request


@pytest.mark.parametrize(
    ("headers", "base"),
    [
        ({}, "http://inside:8090"),
        ({"X-Forwarded-Proto": "https"}, "https://inside:8090"),
        ({"X-Forwarded-Prefix": "/hf"}, "http://inside:8090/hf"),
        ({"X-Forwarded-Prefix": "/hf/"}, "http://inside:8090/hf"),
        ({"X-Forwarded-Prefix": "/"}, "http://inside:8090"),
        (
            {"X-Forwarded-Proto": "https, http", "X-Forwarded-Host": "hub.corp, inside", "X-Forwarded-Prefix": "/a/b"},
            "https://hub.corp/a/b",
        ),
        ({"X-Forwarded-Host": "[fd00::1]:8443"}, "http://[fd00::1]:8443"),
        ({"X-Forwarded-Proto": "javascript"}, "http://inside:8090"),
        ({"X-Forwarded-Host": "evil>x"}, "http://inside:8090"),
        ({"X-Forwarded-Host": "me:secret@evil"}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": '/x>; rel="next"'}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": "//evil"}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": "/../x"}, "http://inside:8090"),
        ({"X-Forwarded-Prefix": "no-slash"}, "http://inside:8090"),
    ],
)
def test_headers_of_a_proxy_on_this_machine_count(headers: dict[str, str], base: str):
    assert public_base(asked(headers)) == base
    assert str(public_url(asked(headers))) == f"{base}/a%20b?c=d"
    assert public_base(asked(headers, peer="192.0.2.7")) == "http://inside:8090", "anyone else may forge them"


def test_the_setting_counts_before_everything():
    headers = {"X-Forwarded-Prefix": "/other", "X-Forwarded-Proto": "https"}
    assert str(public_url(asked(headers, configured="https://hub.corp/hf"))) == "https://hub.corp/hf/a%20b?c=d"
