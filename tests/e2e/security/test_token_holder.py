"""Holders of a coordinator's tokens that try more than their token allows, and where the tokens can be seen."""

import base64
import importlib.util
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.core.network.tokens import announce_key
from tests.support.eventually import PATIENCE
from tests.support.processes import Nodes, Running, token_file
from tests.support.ssh_keys import SshKeys
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


@contextmanager
def sampled_arguments(secrets: dict[str, bytes]) -> Iterator[set[str]]:
    """The names of `secrets` that stood in an argument of any process while the context lasted."""
    seen: set[str] = set()
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    arguments = path.read_bytes()
                    seen.update(name for name, secret in secrets.items() if secret in arguments)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(PATIENCE)


PRIVATE_KEY = b"PRIVATE KEY-----"


def private_part(key: Path) -> bytes:
    """A line of a PEM file that no certificate and no public key has."""
    return key.read_bytes().splitlines()[-2]


@pytest.mark.needs("ssh-keygen")
def test_secrets_are_seen_nowhere_with_signatures_a_private_swarm_rules_and_an_audit(
    nodes: Nodes, tmp_path: Path
) -> None:
    keys, source, home = SshKeys(tmp_path / "keys"), tmp_path / "model", {"P2PMODEL_CONFIG": str(tmp_path / "a.toml")}
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    (source / "model.safetensors").write_bytes(b"good" * 100_000)
    signing, member = keys.new("signing"), token_file(tmp_path / "member.token")
    made = nodes.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    has_ldap = importlib.util.find_spec("ldap") is not None
    Path(home["P2PMODEL_CONFIG"]).write_text(
        f'[private]\nrepos = ["org/*"]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\n'
        f'[audit]\nenabled = true\n[trust]\nsigning_key = "{signing}"\n'
        '[[access.rules]]\nsubjects = ["token:ci", "member"]\n'
        + ('[ldap]\nurl = "ldaps://127.0.0.1:9"\nuser_dn = "uid={user},dc=example"\n' if has_ldap else "")
    )
    machine, password, wrong = tmp_path / "ci.token", "pa55-w0rd-of-anna", "0123456789abcdef-wrong"
    machine.touch(0o600)
    machine.write_text(nodes.ok("seeder", "token", "issue", "ci", "-q", **home).out)
    tokens = [path.read_text().strip() for path in (member, nodes.publish_token, machine)]
    login = base64.b64encode(f"anna:{password}".encode()).decode()
    plain = dict(
        zip(
            ("member", "publisher", "machine", "password", "login", "wrong"),
            (*tokens, password, login, wrong),
            strict=True,
        )
    )
    secrets = {name: text.encode() for name, text in plain.items()}
    secrets |= {"signing key": private_part(signing), "authority": private_part(Path(made["key"]))}

    with sampled_arguments(secrets) as in_arguments:
        seeder = nodes.seed(source, "--as", REPO, "--token-file", member, **home)
        ready = seeder.ready()
        url = str(ready["coordinator"])
        for sent in (f"Basic {login}", f"Bearer anna:{password}", f"Bearer {wrong}"):
            for path in (f"/private/{ready['info_hash']}", f"/source/{REPO}/resolve/main/config.json"):
                with pytest.raises(urllib.error.HTTPError):
                    urllib.request.urlopen(urllib.request.Request(url + path, headers={"Authorization": sent}))
        allowed = keys.allow(f"alice {keys.public(signing)}")
        strict = {
            "P2PMODEL_TRUST_RULES": '[{"repos": ["*"], "signature": "enforce"}]',
            "P2PMODEL_TRUST_ALLOWED_SIGNERS": str(allowed),
            "P2PMODEL_COORDINATOR_TOKEN_FILE": str(machine),
            "P2PMODEL_PUBLISH_TOKEN_FILE": "",
        }
        fetch = nodes.fetch("node", REPO, "--coordinator", url, "--endpoint", DEAD, "--seed-time", "60", **strict)
        assert fetch.ready()["vouched_by"] == "signature alice"
        ended = [each.stop() for each in (seeder, fetch)]
    printed = "".join(f"{each.out}{each.err}" for each in ended).encode()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    own = {member, nodes.publish_token, machine, signing, Path(made["key"])}
    own |= {path for path in files if path.suffix == ".token"}
    assert {path.stat().st_mode & 0o777 for path in own} == {0o600}
    assert any("audit" in path.parts and b"token:ci" in data for path, data in files.items())
    assert any("signatures" in path.parts for path in files)
    in_files = {(name, path) for path in files.keys() - own for name, each in secrets.items() if each in files[path]}
    # A torrent has the key of its coordinator's members. No other file and no line has it, or one of a machine token.
    announced = [announce_key(token).encode() for token in tokens]
    hashes = {path for path in files if path.name == "tokens.json" and path.stat().st_mode & 0o777 == 0o600}
    torrents = {path for path, data in files.items() if data.startswith(b"d8:announce")}
    keyed = {path for path in files.keys() - hashes - torrents for key in announced if key in files[path]}
    assert (in_arguments, in_files, keyed) == (set(), set(), set())
    assert [name for name, each in secrets.items() if each in printed] == []
    # The keys of nodes in the private swarm, also those of its HTTP source, are in memory alone.
    assert {path for path in files.keys() - own if PRIVATE_KEY in files[path]} == set()
    assert PRIVATE_KEY not in printed
    assert all(PRIVATE_KEY in files[path] for path in (signing, Path(made["key"]))), "the search finds what is there"
    assert [key for key in announced if key in printed] == []
    assert any(announced[0] in files[path] for path in torrents), "the search finds what is there"
