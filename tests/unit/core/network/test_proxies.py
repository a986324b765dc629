"""Which proxy a URL goes through: the variables, NO_PROXY, and proxies that cannot be used."""

import pytest

from p2pmodel.core.network.proxies import DIRECT, DirectHosts, Proxies, proxies_of
from p2pmodel.errors import InvalidInput


@pytest.mark.parametrize(
    ("listed", "host", "port", "direct"),
    [
        ("*", "hub.example", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "11.1.2.3", 80, False),
        ("127.0.0.0/8", "127.0.0.1", 8090, True),
        ("127.0.0.1:18312", "127.0.0.1", 18312, True),
        ("127.0.0.1:18312", "127.0.0.1", 80, False),
        ("127.0.0.1", "::ffff:127.0.0.1", 80, True),
        ("[::1]:8090", "::1", 8090, True),
        ("[::1]:8090", "::1", 80, False),
        ("::1", "[::1]", 80, True),
        ("fd00::/8", "fd12::1", 80, True),
        ("hub.corp", "hub.corp", 80, True),
        ("hub.corp", "a.hub.corp", 80, True),
        ("hub.corp", "myhub.corp", 80, False),
        (".corp", "hub.corp", 80, True),
        (".corp", "corp", 80, True),
        ("*.corp", "hub.corp", 80, True),
        ("Hub.Corp.", "hUB.corp", 80, True),
        ("hub.corp:8443", "hub.corp", 8443, True),
        ("hub.corp:8443", "hub.corp", 443, False),
        ("10.0.0.0/99", "10.0.0.1", 80, False),
        ("<local>", "hub.corp", 80, False),
        ("", "hub.corp", 80, False),
        (" a.example , 10.0.0.0/8 ", "10.9.9.9", 80, True),
    ],
)
def test_no_proxy_lists_hosts_networks_and_ports(listed: str, host: str, port: int, direct: bool):
    assert DirectHosts.parse(listed.split(",")).cover(host, port) is direct


@pytest.mark.parametrize(
    ("variables", "http", "https"),
    [
        ({}, None, None),
        ({"HTTP_PROXY": "http://p:1"}, "p:1", None),
        ({"HTTPS_PROXY": "p:1"}, None, "p:1"),
        ({"ALL_PROXY": "http://p:1"}, "p:1", "p:1"),
        ({"ALL_PROXY": "socks5://s:1", "http_proxy": "p:1", "https_proxy": "p:2"}, "p:1", "p:2"),
        ({"http_proxy": "low:1", "HTTP_PROXY": "high:1"}, "low:1", None),
        ({"http_proxy": "", "HTTP_PROXY": "high:1"}, None, None),
        ({"HTTP_PROXY": "p:1", "REQUEST_METHOD": "GET"}, None, None),
        ({"HTTP_PROXY": "p"}, "p:80", None),
        ({"HTTP_PROXY": "https://[::1]:8443"}, "[::1]:8443", None),
    ],
)
def test_the_variables_name_a_proxy_for_each_scheme(variables, http, https):
    by_scheme, _ = proxies_of(variables)
    proxies = Proxies(by_scheme)
    for url, name in (("http://hub/x", http), ("https://hub/x", https)):
        proxy = proxies.of(url)
        assert (proxy.name if proxy else None) == name


def test_the_list_of_direct_hosts_counts_in_lower_case_first():
    assert proxies_of({"no_proxy": "a", "NO_PROXY": "b"})[1] == "a"


def test_the_port_of_a_url_without_one_is_that_of_its_scheme():
    proxies = Proxies({"https": "p:1"}, DirectHosts.parse(["hub:443"]))
    assert proxies.of("https://hub/x") is None
    assert proxies.of("https://hub:8443/x") is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("socks5://127.0.0.1:9", "the proxy 127.0.0.1:9 for http:// URLs is a SOCKS proxy"),
        ("socks5h://me:secret@127.0.0.1:9", "is a SOCKS proxy"),
        ("ftp://127.0.0.1:9", "one of kind 'ftp'"),
        ("http://:3128", "is not a URL"),
        ("http://me:secret@proxy:99999", "is not a URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_in_one_line_without_its_password(given: str, said: str):
    with pytest.raises(InvalidInput) as caught:
        Proxies({"http": given}).of("http://hub/x")
    assert said in str(caught.value)
    assert "HTTP_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_proxy_that_cannot_be_used_does_not_matter_for_direct_hosts():
    assert Proxies({"http": "socks5://p:1"}, DirectHosts.parse(["hub"])).of("http://hub/x") is None
    assert DIRECT.of("http://hub/x") is None


def test_credentials_are_a_header_and_appear_nowhere_else():
    proxies = Proxies({"http": "http://us%40er:p%3Ass@proxy:3128"})
    proxy = proxies.of("http://hub/x")
    assert proxy is not None
    assert proxy.headers == {"Proxy-Authorization": "Basic dXNAZXI6cDpzcw=="}
    assert (proxy.url, proxy.name) == ("http://proxy:3128", "proxy:3128")
    assert "p%3Ass" not in f"{proxy!r}{proxies!r}"
    assert "dXNA" not in repr(proxy)
