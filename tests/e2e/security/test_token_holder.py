"""Holders of a coordinator's tokens that try more than their token allows, and where the tokens can be seen."""

import base64
import importlib.util
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from p2pmodel.core.network.tokens import announce_key
from p2pmodel.http.server import serving
from tests.support.eventually import PATIENCE
from tests.support.in_thread import in_thread
from tests.support.processes import Nodes, Running, token_file
from tests.support.slapd import PEOPLE, SLAPD, made, user
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
def sampled_processes(secrets: dict[str, bytes]) -> Iterator[set[str]]:
    """The names of `secrets` that stood in an argument or in the environment of any process while the context lasted,
    as `ps` shows them; "found" if a process with PROBE in its environment was seen."""
    seen: set[str] = set()
    ended = threading.Event()
    wanted = secrets | {"found": PROBE}

    def sample() -> None:
        while not ended.wait(0.02):
            for path in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with suppress(OSError):
                        data = (path / name).read_bytes()
                        seen.update(name for name, secret in wanted.items() if secret in data)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join(PATIENCE)


PROBE = b"a-variable-of-the-user"
PRIVATE_KEY = b"PRIVATE KEY-----"


def private_part(key: Path) -> bytes:
    """A line of a PEM file that no certificate and no public key has."""
    return key.read_bytes().splitlines()[-2]


@dataclass(frozen=True)
class Logins:
    """Directories of users at which anna is known: settings for them, and what she sends, by the name of the secret."""

    settings: str
    headers: dict[str, str]


@contextmanager
def directories(folder: Path, password: str) -> Iterator[Logins]:
    """A real slapd and an OIDC issuer, as far as the extras and the program are installed."""
    found, headers = "", dict[str, str]()
    with ExitStack() as stack:
        if importlib.util.find_spec("ldap") is not None and SLAPD:
            server = made(folder, [user("anna") | {"userPassword": [password]}])
            server.start()
            stack.callback(server.stop)
            found += (
                f'[ldap]\nurl = "{server.url()}"\nca_file = "{folder / "ca.pem"}"\nuser_dn = "uid={{user}},{PEOPLE}"\n'
            )
            headers["login"] = f"Basic {base64.b64encode(f'anna:{password}'.encode()).decode()}"
            headers["password"] = f"Bearer anna:{password}"
        if importlib.util.find_spec("joserfc") is not None:
            from tests.support.oidc_issuer import Issuer

            issuer = Issuer()
            issuer.url = stack.enter_context(in_thread(serving(issuer.app(), "127.0.0.1", 0)))
            found += f'[oidc]\nissuer = "{issuer.url}"\naudience = "p2pmodel"\n'
            headers["oidc"] = issuer.token().authorization
        yield Logins(found, headers)


@pytest.fixture
def logins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logins]:
    """In a folder of their own, which is not searched: the server has the password."""
    with directories(tmp_path_factory.mktemp("directories"), PASSWORD) as found:
        yield found


PASSWORD = "pa55-w0rd-of-anna"


@pytest.mark.needs("ssh-keygen")
def test_secrets_are_seen_nowhere_with_signatures_a_private_swarm_rules_logins_and_an_audit(
    nodes: Nodes, tmp_path: Path, logins: Logins
) -> None:
    keys, source, home = SshKeys(tmp_path / "keys"), tmp_path / "model", {"P2PMODEL_CONFIG": str(tmp_path / "a.toml")}
    source.mkdir()
    (source / "config.json").write_bytes(b"{}")
    (source / "model.safetensors").write_bytes(b"good" * 100_000)
    signing, member = keys.new("signing"), token_file(tmp_path / "member.token")
    made = nodes.ok("seeder", "ca", "init", "--folder", tmp_path / "ca", "--json").json
    Path(home["P2PMODEL_CONFIG"]).write_text(
        f'[private]\nrepos = ["org/*"]\nca_file = "{made["certificate"]}"\nca_key = "{made["key"]}"\n'
        f'[audit]\nenabled = true\n[trust]\nsigning_key = "{signing}"\n'
        '[[access.rules]]\nsubjects = ["token:ci", "member", "user:anna", "oidc:anna"]\n' + logins.settings
    )
    machine, wrong = tmp_path / "ci.token", "0123456789abcdef-wrong"
    machine.touch(0o600)
    machine.write_text(nodes.ok("seeder", "token", "issue", "ci", "-q", **home).out)
    tokens = [path.read_text().strip() for path in (member, nodes.publish_token, machine)]
    plain = dict(zip(("member", "publisher", "machine"), tokens, strict=True)) | {"wrong": wrong, "plain": PASSWORD}
    plain |= {name: sent.partition(" ")[2] for name, sent in logins.headers.items()}
    secrets = {name: text.encode() for name, text in plain.items()}
    secrets |= {"signing key": private_part(signing), "authority": private_part(Path(made["key"]))}

    def asked(sent: str, path: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url + path, headers={"Authorization": sent})) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            return refusal.code

    with sampled_processes(secrets) as in_processes:
        seeder = nodes.seed(source, "--as", REPO, "--token-file", member, **home)
        ready = seeder.ready()
        url = str(ready["coordinator"])
        for sent in (*logins.headers.values(), f"Bearer {wrong}"):
            assert asked(sent, f"/private/{ready['info_hash']}") >= 400
            assert asked(sent, f"/source/{REPO}/resolve/main/config.json") >= 400
            assert asked(sent, f"/catalog?repo={REPO}") == (401 if wrong in sent else 200), "anna is known"
        allowed = keys.allow(f"alice {keys.public(signing)}")
        strict = {
            "P2PMODEL_TRUST_RULES": '[{"repos": ["*"], "signature": "enforce"}]',
            "P2PMODEL_TRUST_ALLOWED_SIGNERS": str(allowed),
            "P2PMODEL_COORDINATOR_TOKEN_FILE": str(machine),
            "P2PMODEL_PUBLISH_TOKEN_FILE": "",
        }
        fetch = nodes.fetch("node", REPO, "--coordinator", url, "--endpoint", DEAD, "--seed-time", "60", **strict)
        assert fetch.ready()["vouched_by"] == "signature alice"
        engine = nodes.start(
            *("engine", "fetch", REPO, "--coordinator", url, "--endpoint", DEAD, "--no-daemon"),
            *("--swarm-listen", "127.0.0.12:0", "--exec", "sh -c 'env; exec sleep 1'"),
            **strict,
            OF_THE_USER=PROBE.decode(),
        )
        started = engine.wait()
        assert (started.code, PROBE.decode() in started.out) == (0, True), started.err[-2000:]
        assert "P2PMODEL_PATH=" in started.out, "what the engine's environment has is printed"
        ended = [each.stop() for each in (seeder, fetch)] + [started]
    printed = "".join(f"{each.out}{each.err}" for each in ended).encode()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    own = {member, nodes.publish_token, machine, signing, Path(made["key"])}
    own |= {path for path in files if path.suffix == ".token"}
    assert {path.stat().st_mode & 0o777 for path in own} == {0o600}
    assert any("audit" in path.parts and b"token:ci" in data for path, data in files.items())
    assert any("signatures" in path.parts for path in files)
    in_files = {(name, path) for path in files.keys() - own for name, each in secrets.items() if each in files[path]}
    # The announce keys of members, publishers and machine tokens are in no file, nor in a torrent of a private swarm.
    announced = [announce_key(token).encode() for token in tokens]
    hashes = {path for path in files if path.name == "tokens.json" and path.stat().st_mode & 0o777 == 0o600}
    assert any(data.startswith(b"d8:announce") for data in files.values())
    keyed = {path for path in files.keys() - hashes for key in announced if key in files[path]}
    assert (in_processes, in_files, keyed) == ({"found"}, set(), set())
    assert [name for name, each in secrets.items() if each in printed] == []
    # The keys of nodes in the private swarm, also those of its HTTP source, are in memory alone.
    assert {path for path in files.keys() - own if PRIVATE_KEY in files[path]} == set()
    assert PRIVATE_KEY not in printed
    assert all(PRIVATE_KEY in files[path] for path in (signing, Path(made["key"]))), "the search finds what is there"
    assert [key for key in announced if key in printed] == []
    assert any(announced[2] in files[path] for path in hashes), "the search finds what is there"
