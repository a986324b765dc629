"""A coordinator on loopback without configured tokens: what its own user may, and what other programs may not."""

import stat
import urllib.error
import urllib.request
from pathlib import Path

from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes, Running
from tests.support.torrent_files import SMALL, torrent_of

REPO = "org/model"


def start(nodes: Nodes, node: str) -> Running:
    """A coordinator without publishers of its own."""
    return nodes.start(node, "coordinator", "--listen", "127.0.0.5:0", "--json", publishers=False)


def status(method: str, url: str, body: bytes | None = None, token: str = "") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers, method=method), timeout=PATIENCE
        ) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        return refusal.code


def test_reading_is_open_and_changing_needs_the_token_of_its_user(nodes: Nodes) -> None:
    running = start(nodes, "user")
    ready = running.ready()
    url, kept = str(ready["url"]), Path(str(ready["publish_token_file"]))
    assert (stat.S_IMODE(kept.stat().st_mode), kept.parts[: len(nodes.root.parts)]) == (0o600, nodes.root.parts)
    token, body = kept.read_text().strip(), torrent_of(SMALL, repo=REPO)
    assert status("GET", f"{url}/catalog") == 200
    assert status("PUT", f"{url}/catalog?revision=main", body) == 401
    assert status("GET", f"{url}/assemblies/{'0' * 64}") == 401
    assert status("PUT", f"{url}/catalog?revision=main", body, token) == 201
    assert token not in "".join((*running.out, *running.err))
    running.stop()
    assert not kept.exists()


def test_other_commands_of_the_user_publish_without_an_option(nodes: Nodes, tmp_path: Path) -> None:
    url = str(start(nodes, "user").ready()["url"])
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes(b"{}")
    once = ("seed", model, "--as", REPO, "--once", "--coordinator", url, "--json", "-q")
    refused = nodes.run("another", *once, P2PMODEL_PUBLISH_TOKEN_FILE="")
    assert (refused.code, "publish_token_file" in refused.err) == (4, True), refused.err
    nodes.ok("user", *once, P2PMODEL_PUBLISH_TOKEN_FILE="")
    assert status("GET", f"{url}/catalog?repo={REPO}") == 200
