"""A daemon over HTTPS: what it takes to start one, and how verbs and Hugging Face clients reach it."""

import random
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support.certificates import authority, issued
from tests.support.hub_clients import HubClient, new_hub_python, old_hub_python
from tests.support.processes import PATIENCE, Nodes

__all__ = ["new_hub_python", "old_hub_python"]

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
TOKEN = "open-sesame-sesame"
DOWNLOAD = """
import json, sys
from huggingface_hub import snapshot_download
print(json.dumps(snapshot_download(*sys.argv[1:])))
"""


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The certificate of 127.0.0.1, which is its own authority, and its key."""
    ca, _ = authority(tmp_path)
    return ca, tmp_path / "key.pem"


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


def test_verbs_control_a_remote_daemon(nodes: Nodes, pair: tuple[Path, Path], token: Path, tmp_path: Path) -> None:
    where = ("--control-listen", "127.0.0.1:0", "--hub-listen", "off", "--endpoint", DEAD)
    tls = ("--tls-cert", pair[0], "--tls-key", pair[1], "--token-file", token)
    url = str(nodes.start("far", "daemon", *where, *tls, "--json").ready()["url"])
    assert url.startswith("https://127.0.0.1:")
    known = ("--server", url, "--ca-file", pair[0], "--server-token-file", token)
    assert nodes.ok("near", "status", *known, "--json").json["transfers"] == []
    assert nodes.ok("near", "limits", *known, "--upload", "5MB", "--json").json["upload"] == 5_000_000
    env = {
        "P2PMODEL_CLIENT_SERVER": url,
        "P2PMODEL_CLIENT_CA_FILE": str(pair[0]),
        "P2PMODEL_CLIENT_TOKEN_FILE": str(token),
    }
    assert nodes.ok("near", "limits", "--json", **env).json["upload"] == 5_000_000
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    nodes.ok("far", "import", source, REPO)
    fetched = nodes.ok("near", "fetch", REPO, *known, "--json").json
    assert Path(fetched["path"], "config.json").read_text() == "{}"
    assert not nodes.cache("near").exists()
    assert REPO in nodes.ok("near", "ls", *known).out
    assert "would remove" in nodes.ok("near", "rm", REPO, *known, "--dry-run").err
    assert nodes.ok("near", "rm", REPO, *known, "--yes", "--json").json["repo"] == REPO
    assert nodes.ok("near", "ls", *known, "--json").json["snapshots"] == []
    assert "stay on that machine" in nodes.run("near", "fetch", REPO, *known, "--local-dir", tmp_path / "d").err
    for options, code, said in (
        (("--server", url, "--server-token-file", token), 6, "certificate"),
        (("--server", url, "--ca-file", pair[0]), 4, "token"),
        (("--server", url.replace("https", "http")), 6, "the daemon"),
        (("--server", "https://127.0.0.1:9", "--ca-file", pair[0]), 6, "no daemon is running"),
        (("--server", url, "--ca-file", tmp_path / "none"), 2, "none cannot be read"),
        (("--server", "ftp://x"), 2, "client.server"),
    ):
        ended = nodes.run("near", "status", *options)
        assert (ended.code, ended.out) == (code, ""), ended.err
        assert said in ended.err
        assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize("python", ["old_hub_python", "new_hub_python"])
def test_hub_clients_download_over_https(
    nodes: Nodes, pair: tuple[Path, Path], python: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(6 << 20))
    nodes.ok("node", "import", source, REPO)
    where = ("--hub-listen", "127.0.0.1:0", "--endpoint", DEAD, "--tls-cert", pair[0], "--tls-key", pair[1])
    hub = str(nodes.start("node", "daemon", *where, "--json", HF_HUB_OFFLINE="1").ready()["hub"])
    home = tmp_path / "client"
    home.mkdir()
    client = HubClient(request.getfixturevalue(python), home, hub, ca_file=pair[0])
    snapshot = Path(client.script(DOWNLOAD, REPO))
    assert {p.name: p.read_bytes() for p in snapshot.iterdir()} == {p.name: p.read_bytes() for p in source.iterdir()}


def test_a_certificate_in_place_of_a_token(nodes: Nodes, pair: tuple[Path, Path], tmp_path: Path) -> None:
    mine = issued(tmp_path, "client")
    where = ("--control-listen", "127.0.0.1:0", "--hub-listen", "off", "--endpoint", DEAD)
    tls = ("--tls-cert", pair[0], "--tls-key", pair[1], "--tls-client-ca", pair[0])
    url = str(nodes.start("far", "daemon", *where, *tls, "--json").ready()["url"])
    assert nodes.run("near", "status", "--server", url, "--ca-file", pair[0]).code == 6
    config = tmp_path / "client.toml"
    config.write_text(
        f'[client]\nserver = "{url}"\nca_file = "{pair[0]}"\ncertificate = "{mine[0]}"\nkey = "{mine[1]}"\n'
    )
    assert nodes.ok("near", "status", "--config", config, "--json").json["transfers"] == []
    context = ssl.create_default_context(cafile=pair[0])
    context.load_cert_chain(*mine)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), urllib.request.ProxyHandler({}))
    named = urllib.request.Request(f"{url}/api/v1/node", headers={"Host": "node7.cluster"})
    assert opener.open(named, timeout=PATIENCE).status == 200
    named.add_header("Origin", "https://elsewhere.example")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        opener.open(named, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--control-listen", "0.0.0.0:0", "--tls-cert", "CA", "--tls-key", "KEY"), "is reachable from other machines"),
        (("--hub-listen", "0.0.0.0:0", "--tls-cert", "CA", "--tls-key", "KEY"), "is reachable from other machines"),
        (("--control-listen", "127.0.0.1:0", "--tls-cert", "CA"), "a certificate and its key"),
        (("--control-listen", "127.0.0.1:0", "--tls-client-ca", "CA"), "a certificate and its key"),
        (("--control-listen", "127.0.0.1:0", "--tls-cert", "none.pem", "--tls-key", "KEY"), "none.pem cannot be read"),
        (("--control-listen", "127.0.0.1:0", "--tls-cert", "CA", "--tls-key", "OTHER"), "do not belong together"),
        (("--control-listen", "127.0.0.1:0", "--tls-cert", "KEY", "--tls-key", "KEY"), "cannot be used"),
    ],
)
def test_invalid_options_are_an_error(
    nodes: Nodes, pair: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    files = {"CA": pair[0], "KEY": pair[1], "OTHER": issued(tmp_path, "other")[1]}
    ended = nodes.run("node", "daemon", *(files.get(option, option) for option in options))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
