"""The dashboard in a real browser: a transfer is watched from 0 to 100 %, paused by a click, resumed by a key."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Browser, chromium
from tests.support.processes import PATIENCE, Nodes, Running, eventually

pytestmark = [pytest.mark.needs("chromium", "chromedriver"), pytest.mark.slow]

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
SIZE = 24_000_000
WATCH = """
window.seen = [];
const note = () => {
  const bar = document.querySelector("[role=progressbar]");
  const value = bar && Number(bar.getAttribute("aria-valuenow"));
  if (bar && window.seen.at(-1) !== value) window.seen.push(value);
};
new MutationObserver(note).observe(document.body, {subtree: true, childList: true, attributes: true});
note();
"""
ENTER = "\ue007"
TAB = "\ue004"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def browser(nodes: Nodes, window: Browser) -> Iterator[Browser]:
    """The browser window; it leaves the page when the nodes of a test end, and its log is emptied."""
    yield window
    window.open("about:blank")
    window.complaints()


@pytest.fixture
def seeder(nodes: Nodes, tmp_path: Path) -> str:
    """The coordinator of a seeder with an uplink slow enough to watch the transfer."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(random.Random(5).randbytes(SIZE))
    return str(nodes.seed(source, "--as", REPO, "--upload-limit", "4000000").ready()["coordinator"])


def daemon(nodes: Nodes, coordinator: str, *options: str | Path, **env: str) -> Running:
    where = ("--coordinator", coordinator, "--endpoint", DEAD, "--swarm-listen", "127.0.0.11:0", "--json")
    running = nodes.start("node", "daemon", *where, "--control-listen", "127.0.0.1:0", *options, **env)
    running.ready()
    return running


def one(nodes: Nodes) -> dict[str, Any]:
    [transfer] = nodes.ok("node", "status", "--json").json["transfers"]
    assert isinstance(transfer, dict)
    return transfer


def shows(browser: Browser, selector: str, text: str) -> None:
    eventually(lambda: text in browser.text(selector), PATIENCE, lambda: browser.text("body"))


def state(browser: Browser) -> str:
    return browser.text(".transfer .state")


def keep(browser: Browser, name: str) -> None:
    """Save a screenshot if P2PMODEL_TEST_PICTURES is set."""
    folder = os.environ.get("P2PMODEL_TEST_PICTURES")
    if folder:
        (Path(folder) / f"{name}.png").write_bytes(browser.picture())


def test_a_transfer_is_watched_from_its_beginning_to_its_end(nodes: Nodes, seeder: str, browser: Browser) -> None:
    browser.looks(width=1100)
    browser.open(str(daemon(nodes, seeder).ready()["url"]))
    shows(browser, "#link", "live")
    shows(browser, "#no-transfers", "p2pmodel fetch")
    browser.run(WATCH)
    fetch = nodes.start("node", "fetch", REPO, "-q")
    shows(browser, ".transfer h3", f"{REPO}@main")
    shows(browser, ".map figcaption", "verified")
    shows(browser, ".why", "–")
    shows(browser, ".figures", "MB/s")
    shows(browser, ".figures", " left")
    keep(browser, "downloading")
    browser.click("[data-operation=pause]")
    eventually(lambda: state(browser) == "paused", PATIENCE, lambda: browser.text("body"))
    assert one(nodes)["state"] == "paused"
    assert browser.run("return document.activeElement.dataset.operation") == "resume"
    shows(browser, ".why", "it is paused")
    browser.press(ENTER)
    eventually(lambda: state(browser) == "active", PATIENCE, lambda: browser.text("body"))
    assert fetch.wait().code == 0
    eventually(lambda: state(browser) == "seeding", PATIENCE, lambda: browser.text("body"))
    seen = browser.run("return window.seen")
    assert (seen[0], seen[-1]) == (0, 100)
    assert len(seen) > 5
    said = browser.run("return document.querySelector('[role=progressbar]').getAttribute('aria-valuetext')")
    assert "from peers" in said
    shows(browser, "#catalog", REPO)
    nodes.ok("node", "ready", REPO, "--loading")
    shows(browser, ".figures", "an engine loads it")
    nodes.ok("node", "ready", REPO, "--answered")
    shows(browser, ".figures", "first token")
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 1100])
def test_it_fits_every_screen(nodes: Nodes, seeder: str, browser: Browser, width: int, dark: bool) -> None:
    browser.looks(width=width, dark=dark)
    browser.open(str(daemon(nodes, seeder, "--download-limit", "1000000").ready()["url"]))
    nodes.start("node", "fetch", REPO, "-q")
    shows(browser, ".map figcaption", "verified")
    shows(browser, "#catalog", REPO)
    shows(browser, "#limits", "1.00 MB/s / none")
    for closed in ("#change", ".connections"):
        browser.click(f"{closed} summary")
    shows(browser, ".connections tbody", "127.0.0.3")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(14, 19, 25)" if dark else "rgb(245, 246, 248)")
    keep(browser, f"{width}-{'dark' if dark else 'light'}")
    assert browser.complaints() == []


def test_by_keyboard_alone(nodes: Nodes, seeder: str, browser: Browser) -> None:
    browser.looks(width=800)
    browser.open(str(daemon(nodes, seeder, "--download-limit", "500000").ready()["url"]))
    nodes.start("node", "fetch", REPO, "-q")
    shows(browser, ".transfer h3", REPO)
    reached = []
    for _ in range(4):
        browser.press(TAB)
        reached.append(browser.run("return document.activeElement.getAttribute('aria-label') ?? ''"))
    assert f"Pause {REPO}" in reached
    browser.run("document.querySelector('[data-operation=pause]').focus()")
    browser.press(ENTER)
    eventually(lambda: state(browser) == "paused", PATIENCE, lambda: browser.text("body"))


def test_the_token_is_requested_once_and_read_only_has_no_buttons(nodes: Nodes, seeder: str, browser: Browser) -> None:
    token = nodes.root / "token"
    token.write_text("open-sesame-sesame\n")
    token.chmod(0o600)
    running = daemon(
        nodes,
        seeder,
        "--token-file",
        token,
        "--read-only",
        "--download-limit",
        "500000",
        P2PMODEL_DAEMON_UPLOAD_SCHEDULE="00:00-24:00=5MB",
    )
    nodes.start("node", "fetch", REPO, "-q")
    browser.open(str(running.ready()["url"]))
    shows(browser, "#link", "token required")
    browser.write("#token", "wrong" + ENTER)
    shows(browser, "#login-error", "Wrong token.")
    browser.write("#token", "open-sesame-sesame" + ENTER)
    shows(browser, "#link", "live")
    shows(browser, ".transfer h3", REPO)
    assert browser.run("return [...document.querySelectorAll('.transfer button')].every(b => b.hidden)")
    assert browser.run("return document.querySelector('#change').hidden")
    shows(browser, "#schedule", "Schedule: upload 00:00-24:00=5MB")
    browser.open(str(running.ready()["url"]))
    shows(browser, ".transfer h3", REPO)
    assert browser.run("return document.querySelector('#login').hidden")
    assert browser.run("return localStorage.length") == 0
    # The browser logs each answer of 401 by itself.
    assert [line for line in browser.complaints() if "401" not in line] == []


def limits(nodes: Nodes) -> tuple[int, int]:
    found = nodes.ok("node", "limits", "--json").json
    return found["download"], found["upload"]


@pytest.mark.parametrize("width", [320, 1100])
def test_the_limits_are_changed_by_keyboard(nodes: Nodes, seeder: str, browser: Browser, width: int) -> None:
    browser.looks(width=width)
    browser.open(str(daemon(nodes, seeder, "--upload-limit", "1500000").ready()["url"]))
    shows(browser, "#limits", "none / 1.50 MB/s")
    browser.run("document.querySelector('#change summary').focus()")
    browser.press(ENTER)
    browser.press(TAB)
    assert browser.run("return document.activeElement.id") == "limit-download"
    browser.write("#limit-download", "fast" + ENTER)
    shows(browser, "#limit-result", "'fast' is not a rate: enter 50 MB, or nothing for no limit")
    assert browser.run("return document.activeElement.getAttribute('aria-invalid')") == "true"
    browser.run("document.activeElement.select()")
    browser.write("#limit-download", "9000 GB" + ENTER)
    shows(browser, "#limit-result", "download: Input should be less than 2147483648")
    assert "\n" not in browser.text("#limit-result")
    assert limits(nodes) == (0, 1_500_000)
    browser.run("document.activeElement.select()")
    browser.write("#limit-download", "2.5MB" + ENTER)
    shows(browser, "#limits", "2.50 MB/s / 1.50 MB/s")
    shows(browser, "#limit-result", "Limits changed.")
    assert limits(nodes) == (2_500_000, 1_500_000)
    assert browser.run("return document.querySelector('#limit-download').value") == "2.50 MB"
    assert browser.run("return document.documentElement.scrollWidth") <= width
    keep(browser, f"limits-{width}")
    # The browser logs each answer of 400 by itself.
    assert [line for line in browser.complaints() if "400" not in line] == []


def test_a_follow_list_and_the_peers_of_its_transfer_are_listed(nodes: Nodes, seeder: str, browser: Browser) -> None:
    browser.looks(width=1100)
    lists = json.dumps([{"repo": REPO, "include": ["*.safetensors"]}])
    browser.open(str(daemon(nodes, seeder, "--download-limit", "1000000", P2PMODEL_FOLLOW=lists).ready()["url"]))
    shows(browser, "#follow-rows", "main · *.safetensors")
    shows(browser, "#follow-rows", "at all times")
    shows(browser, "#follow-rows", "0 of 1 snapshot · ")
    shows(browser, ".connections summary", "1 peer")
    assert browser.text(".connections tbody") == ""
    browser.run("document.querySelector('.connections summary').focus()")
    browser.press(ENTER)
    shows(browser, ".connections tbody", "127.0.0.3:")
    shows(browser, ".connections tbody", "100 %")
    shows(browser, ".connections tbody", " MB")
    browser.press(ENTER)
    assert not browser.run("return document.querySelector('.connections').open")


def test_the_page_reconnects_to_a_restarted_node(nodes: Nodes, seeder: str, browser: Browser) -> None:
    running = daemon(nodes, seeder, "--control-listen", "127.0.0.44:0")
    address = str(running.ready()["url"]).removeprefix("http://")
    browser.open(f"http://{address}")
    shows(browser, "#link", "live")
    running.stop()
    shows(browser, "#link", "trying again")
    again = ("--endpoint", DEAD, "--swarm-listen", "127.0.0.11:0", "--json", "--control-listen", address)
    nodes.start("node", "daemon", "--coordinator", seeder, *again).ready()
    shows(browser, "#link", "live")
