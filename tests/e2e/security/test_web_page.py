"""A page of another site in a real browser, and DNS rebinding: no server changes, and the page reads nothing."""

import http.client
import itertools
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.browser import Browser, chromium
from tests.support.processes import PATIENCE, Nodes, eventually, served

REPO = "org/model"
FILE = f"/{REPO}/resolve/main/config.json"
HASH = "ab" * 32
NAME = "evil.example"
ATTACK = """
const done = arguments[0];
window.results = {};
const note = (name, result) => { window.results[name] = String(result); };
const attempt = async (name, url, options) => {
  try {
    const answer = await fetch(url, options);
    note(name, answer.type === "opaque" ? "opaque" : "read " + await answer.text());
  } catch (error) { note(name, "failed"); }
};
const picture = (name, url) => new Promise((end) => {
  const image = new Image();
  image.onload = () => { note(name, "read"); end(); };
  image.onerror = () => { note(name, "failed"); end(); };
  image.referrerPolicy = "no-referrer";
  image.src = url;
});
const script = (name, url) => new Promise((end) => {
  const element = document.createElement("script");
  element.onload = () => { note(name, "read"); end(); };
  element.onerror = () => { note(name, "failed"); end(); };
  element.src = url;
  document.head.append(element);
});
const socket = (name, url) => new Promise((end) => {
  const line = new WebSocket(url);
  line.onopen = () => { note(name, "read"); line.close(); end(); };
  line.onerror = () => { note(name, "failed"); end(); };
});
const form = (name, url, fields, type) => new Promise((end) => {
  const frame = document.createElement("iframe");
  frame.name = name;
  document.body.append(frame);
  const element = document.createElement("form");
  Object.assign(element, {action: url, method: "POST", target: name, enctype: type});
  for (const [key, value] of Object.entries(fields)) {
    const input = document.createElement("input");
    Object.assign(input, {name: key, value: value});
    element.append(input);
  }
  document.body.append(element);
  frame.onload = () => { note(name, "sent"); end(); };
  element.submit();
});
const kinds = {attempt, picture, script, socket, form};
Promise.all(arguments[1].map(([kind, ...rest]) => kinds[kind](...rest))).then(() => { window.done = true; });
"""


@dataclass(frozen=True)
class Servers:
    """The URLs of one running server of each kind, none with a token, and the log of the hub behind them."""

    coordinator: str
    control: str
    hub_endpoint: str
    mirror: str
    hub_log: Path

    @property
    def state(self) -> dict[str, Any]:
        """What an attack could change."""
        catalog = _read(f"{self.coordinator}/catalog")
        return {
            "catalog": json.loads(catalog),
            "peers": _read(f"{self.coordinator}/scrape?info_hash={'%ab' * 20}"),
            "transfers": json.loads(_read(f"{self.control}/api/v1/transfers")),
            "limits": json.loads(_read(f"{self.control}/api/v1/limits")),
            "downloads": [request["path"] for request in served(self.hub_log)],
        }


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        body = answer.read()
    assert isinstance(body, bytes)
    return body


@pytest.fixture
def servers(nodes: Nodes, tmp_path: Path) -> Servers:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    hub, log = nodes.hub(source)
    coordinator = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json", "-q")
    mirror, _ = nodes.mirror("--upstream", hub, address="127.0.0.6:0")
    where = ("--control-listen", "127.0.0.7:0", "--hub-listen", "127.0.0.7:0", "--swarm-listen", "127.0.0.7:0")
    daemon = nodes.start("node", "daemon", *where, "--endpoint", hub, "--json", "-q").ready()
    return Servers(str(coordinator.ready()["url"]), daemon["url"], daemon["hub"], mirror, log)


@contextmanager
def attacking_page(folder: Path) -> Iterator[str]:
    """A web server of another site; yields the URL of its page."""
    (folder / "index.html").write_text("<!doctype html><title>page</title><body></body>")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.66", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.66:{server.server_port}/index.html"
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


def attempts(on: Servers) -> list[list[Any]]:
    """What the page tries: each attempt is its kind, its name and its arguments."""
    announce = f"/announce?info_hash={'%ab' * 20}&peer_id={'x' * 20}&port=7&left=0&ip=203.0.113.9&compact=1"
    start = json.dumps({"ref": REPO})
    plain = {"method": "POST", "mode": "no-cors", "headers": {"Content-Type": "text/plain"}, "body": start}
    tried: list[list[Any]] = [
        [
            "socket",
            "assembly",
            f"ws{on.coordinator[4:]}/assemblies/{HASH}?revision=main&peer=127.0.0.66:7&id={HASH[:16]}",
        ],
        ["socket", "leases", f"ws{on.coordinator[4:]}/leases/{HASH}?peer=127.0.0.66:7&id={HASH[:16]}"],
        ["picture", "announce", on.coordinator + announce],
        ["attempt", "announce by fetch", on.coordinator + announce, {"mode": "no-cors"}],
        ["attempt", "publish", f"{on.coordinator}/catalog", {"method": "PUT", "body": "d4:infod4:name1:xee"}],
        ["attempt", "withdraw", f"{on.coordinator}/catalog/torrents/{HASH}.torrent", {"method": "DELETE"}],
        ["attempt", "start", f"{on.control}/api/v1/transfers", plain],
        ["form", "form", f"{on.control}/api/v1/transfers", {start: ""}, "text/plain"],
        ["form", "paths-info", f"{on.mirror}/api/models/{REPO}/paths-info/main", {"paths": "config.json"}, ""],
        ["attempt", "limits", f"{on.control}/api/v1/limits", {"method": "PUT", "body": '{"upload": 1}'}],
        ["attempt", "remove", f"{on.control}/api/v1/snapshots?ref={REPO}", {"method": "DELETE"}],
    ]
    for name, url in (("mirror", on.mirror), ("hub endpoint", on.hub_endpoint)):
        tried += [[kind, f"{kind} from {name}", url + FILE] for kind in ("picture", "script", "attempt")]
        tried.append(["attempt", f"opaque from {name}", url + FILE, {"mode": "no-cors"}])
    tried += [["attempt", url, url] for url in (f"{on.control}/api/v1/transfers", f"{on.coordinator}/catalog")]
    return tried


@pytest.mark.needs("chromium", "chromedriver")
def test_a_page_of_another_site_changes_and_reads_nothing(servers: Servers, tmp_path: Path) -> None:
    before = servers.state
    tried = attempts(servers)
    page = tmp_path / "page"
    page.mkdir()
    with chromium(tmp_path / "profile") as browser, attacking_page(page) as url:
        browser.open(url)
        browser.run(ATTACK, None, tried)
        eventually(lambda: bool(browser.run("return window.done === true")), PATIENCE, lambda: results(browser))
        found = json.loads(results(browser))
    assert found.keys() == {name for _, name, *_ in tried}
    assert not [name for name, result in found.items() if result.startswith("read")], found
    assert servers.state == before


def results(browser: Browser) -> str:
    return str(browser.run("return JSON.stringify(window.results)"))


@pytest.mark.needs("chromium", "chromedriver")
def test_a_name_that_leads_here_after_the_page_is_loaded_opens_nothing(servers: Servers, tmp_path: Path) -> None:
    before = servers.state
    targets = [urlsplit(url) for url in (servers.coordinator, servers.control, servers.hub_endpoint, servers.mirror)]
    rules = ", ".join(f"MAP n{number}.{NAME} {where.hostname}" for number, where in enumerate(targets))
    with chromium(tmp_path / "profile", f"--host-resolver-rules={rules}") as browser:
        for number, where in enumerate(targets):
            browser.open(f"http://n{number}.{NAME}:{where.port}/catalog")
            assert "does not accept the name" in browser.text("body")
    assert servers.state == before


def test_a_foreign_name_is_refused_by_every_server(servers: Servers) -> None:
    before = servers.state
    paths = ("/", "/catalog", "/api/v1/transfers", "/metrics", FILE)
    for url in (servers.coordinator, servers.control, servers.hub_endpoint, servers.mirror):
        where = urlsplit(url)
        assert where.hostname is not None
        for method, path in itertools.product(("GET", "POST", "PUT", "DELETE"), paths):
            line = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE)
            line.request(method, path, headers={"Host": f"{NAME}:{where.port}", "Content-Type": "application/json"})
            answer = line.getresponse()
            assert answer.status == 403, (url, method, path)
            assert "does not accept the name" in json.loads(answer.read())["message"]
            line.close()
    assert servers.state == before
