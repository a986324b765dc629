"""Holders of a coordinator's tokens that try more than their token allows, and where the tokens can be seen."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.core.network.tokens import announce_key
from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes, Running, token_file
from tests.support.torrent_files import SMALL, torrent_of

REPO = "org/model"
DEAD = "http://127.0.0.9:9"


@dataclass(frozen=True)
class Cluster:
    """A coordinator with a member token and two publishers, and a seeder of one of them."""

    nodes: Nodes
    url: str
    tokens: dict[str, str]
    seeder: Running
    info_hash: str

    def ask(self, method: str, path: str, token: str = "", body: bytes | None = None) -> int:
        """The status of a request with one of the tokens."""
        headers = {"Authorization": f"Bearer {self.tokens[token]}"} if token else {}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code

    def commit(self) -> str:
        """What `main` means."""
        headers = {"Authorization": f"Bearer {self.tokens['member']}"}
        request = urllib.request.Request(f"{self.url}/catalog?repo={REPO}", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return str(answer.headers["X-Repo-Commit"])

    def env(self, *names: str) -> dict[str, str]:
        """The settings of a node with these token files."""
        variables = {"member": "P2PMODEL_COORDINATOR_TOKEN_FILE", "team-a": "P2PMODEL_PUBLISH_TOKEN_FILE"}
        unset = {"P2PMODEL_PUBLISH_TOKEN_FILE": ""}
        return unset | {variables[name]: str(self.nodes.root / f"{name}.token") for name in names}


@pytest.fixture
def cluster(nodes: Nodes, tmp_path: Path) -> Cluster:
    files = {name: token_file(nodes.root / f"{name}.token") for name in ("member", "team-a", "team-b", "admin")}
    options = [
        "--token-file",
        files["member"],
        "--admin-token-file",
        files["admin"],
        "--state-dir",
        tmp_path / "catalog",
    ]
    for name in ("team-a", "team-b"):
        options += ["--publish-token-file", files[name]]
    running = nodes.start("coordinator", "coordinator", "--listen", "127.0.0.5:0", "--json", *options)
    url = str(running.ready()["url"])
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_bytes(b"{}")
    (model / "model.safetensors").write_bytes(b"good" * 100_000)
    tokens = {name: path.read_text().strip() for name, path in files.items()}
    known = Cluster(nodes, url, tokens, running, "")
    seeder = nodes.seed(
        model, "--as", REPO, "--coordinator", url, "--token-file", files["member"], **known.env("member", "team-a")
    )
    info_hash = str(seeder.ready()["info_hash"])
    path = f"/catalog/torrents/{info_hash}.torrent"
    nodes.until(lambda: known.ask("GET", path, "member") == 200, "published")
    return Cluster(nodes, url, tokens, seeder, info_hash)


def test_a_stranger_and_a_member_change_nothing(cluster: Cluster) -> None:
    before = cluster.commit()
    torrent, evil = f"/catalog/torrents/{cluster.info_hash}.torrent", torrent_of(SMALL, repo=REPO)
    for method, path, body in (
        ("PUT", "/catalog?revision=main", evil),
        ("DELETE", torrent, None),
        ("DELETE", f"/assemblies/{'0' * 64}?info_hash={cluster.info_hash}", None),
        ("PUT", f"/sources/{cluster.info_hash}", b""),
        ("GET", f"/assemblies/{'0' * 64}", None),
        ("GET", "/catalog", None),
        ("GET", torrent, None),
    ):
        assert cluster.ask(method, path, body=body) == 401, (method, path)
    assert cluster.ask("PUT", "/catalog?revision=main", "member", evil) == 403
    assert cluster.ask("DELETE", torrent, "member") == 403
    assert cluster.ask("DELETE", f"/assemblies/{'0' * 64}?info_hash={cluster.info_hash}", "member") == 404
    assert cluster.commit() == before


def test_a_publisher_moves_and_withdraws_nothing_of_another(cluster: Cluster) -> None:
    before, evil = cluster.commit(), torrent_of(SMALL, repo=REPO)
    torrent = f"/catalog/torrents/{cluster.info_hash}.torrent"
    assert cluster.ask("PUT", "/catalog?revision=main", "team-b", evil) == 403
    assert cluster.ask("DELETE", torrent, "team-b") == 403
    assert cluster.ask("PUT", "/catalog?revision=theirs", "team-b", evil) == 201
    assert cluster.commit() == before
    assert cluster.ask("DELETE", torrent, "admin") == 204


@pytest.mark.parametrize("names", [(), ("member",)], ids=["none", "wrong"])
def test_a_node_that_is_not_accepted_ends_and_asks_no_mirror(cluster: Cluster, names: tuple[str, ...]) -> None:
    (cluster.nodes.root / "member.token").write_text("f" * 32)
    done = cluster.nodes.fetch(
        "node", REPO, "--coordinator", cluster.url, "--endpoint", DEAD, **cluster.env(*names)
    ).wait()
    assert (done.code, done.out) == (4, "")
    line = done.err.strip().splitlines()[-1]
    assert "coordinator_token_file (P2PMODEL_COORDINATOR_TOKEN_FILE)" in line
    assert "Traceback" not in done.err


def test_a_seeder_that_may_not_publish_ends(cluster: Cluster, tmp_path: Path) -> None:
    model = tmp_path / "model"
    done = cluster.nodes.seed(
        model,
        "--as",
        "org/other",
        "--coordinator",
        cluster.url,
        node="other",
        address="127.0.0.4",
        **cluster.env("member"),
    ).wait()
    assert done.code == 4
    assert "publish_token_file (P2PMODEL_PUBLISH_TOKEN_FILE)" in done.err


def test_tokens_are_seen_nowhere(cluster: Cluster, tmp_path: Path) -> None:
    nodes = cluster.nodes
    torrent = tmp_path / "made.torrent"
    fetch = nodes.fetch("node", REPO, "--coordinator", cluster.url, "--seed-time", "60", **cluster.env("member"))
    assert fetch.ready()["from_peers"] >= 0
    listen = ("--listen", "127.0.0.4:0", "--swarm-listen", "127.0.0.4:0", "--coordinator", cluster.url)
    given = ("--token-file", nodes.root / "member.token", "-o", torrent)
    model = tmp_path / "model"
    again = nodes.start("other", "seed", model, "--as", REPO, *listen, *given, **cluster.env("member", "team-a"))
    nodes.until(lambda: "on each node" in "".join(again.err), "it seeds")
    processes = [each.process.pid for each in (cluster.seeder, fetch, again)]
    commands = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes)
    printed = "".join(line for each in (cluster.seeder, fetch, again) for line in (*each.out, *each.err)).encode()
    tokens = [token.encode() for token in cluster.tokens.values()]
    assert announce_key(cluster.tokens["member"]).encode() in torrent.read_bytes()
    seen = [name for token in tokens for name, data in (("commands", commands), ("output", printed)) if token in data]
    for process in (cluster.seeder, fetch, again):
        process.stop()  # no file is being written
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".token"]
    assert any(path.suffix == ".torrent" and "catalog" in path.parts for path in files)
    seen += [str(path) for path in files if any(token in path.read_bytes() for token in tokens)]
    assert seen == []
    assert json.dumps(cluster.tokens) not in printed.decode()
