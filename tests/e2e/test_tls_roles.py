"""Coordinator, seeder, source and mirror over HTTPS with certificates of 'p2pmodel ca', also from clients."""

import random
from pathlib import Path

from tests.support.processes import Nodes, token_file

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
SIZE = 3_000_000


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(random.Random(2).randbytes(SIZE))
    return folder


def test_all_roles_speak_https_and_ask_for_client_certificates(nodes: Nodes, tmp_path: Path) -> None:
    ca, token, source = tmp_path / "ca", token_file(tmp_path / "token"), model(tmp_path / "model")
    nodes.ok("admin", "ca", "init", "--folder", ca, "-q")
    issued = nodes.ok("admin", "ca", "issue", "127.0.0.51", "127.0.0.52", "node", "--folder", ca, "--json").json
    assert [Path(each["certificate"]).name for each in issued["certificates"]][2] == "node.crt"

    def serving(name: str) -> tuple[str | Path, ...]:
        return ("--tls-cert", ca / f"{name}.crt", "--tls-key", ca / f"{name}.key", "--tls-client-ca", ca / "ca.crt")

    trust = {"P2PMODEL_COORDINATOR_CA_FILE": str(ca / "ca.crt"), "P2PMODEL_COORDINATOR_TOKEN_FILE": str(token)}
    own = {
        "P2PMODEL_COORDINATOR_CERTIFICATE": str(ca / "node.crt"),
        "P2PMODEL_COORDINATOR_KEY": str(ca / "node.key"),
    }
    seeding = ("--as", REPO, "--token-file", token, *serving("127.0.0.51"))
    url = str(nodes.seed(source, *seeding, address="127.0.0.51", **trust | own).ready()["coordinator"])
    assert url.startswith("https://127.0.0.51:")
    asks = (REPO, "--coordinator", url, "--endpoint", DEAD)
    refused = nodes.fetch("stranger", *asks, address="127.0.0.53", **trust).wait()
    assert (refused.code, "requires a client certificate" in refused.err) == (4, True), refused.err[-1000:]
    done = nodes.fetch("node", *asks, address="127.0.0.54", **trust | own).wait()
    assert done.code == 0, done.err[-2000:]
    assert done.json["from_mirrors"] == 0

    nodes.ok("mirror", "import", source, REPO)
    listen = ("--listen", "127.0.0.52:0", "--json")
    endpoint = str(nodes.start("mirror", "mirror", "serve", *listen, *serving("127.0.0.52")).ready()["endpoint"])
    assert endpoint.startswith("https://127.0.0.52:")
    config = tmp_path / "client.toml"
    mirror = f'[[mirrors]]\nname = "ours"\nendpoint = "{endpoint}"\nca_file = "{ca / "ca.crt"}"\n'
    config.write_text(mirror)
    config.chmod(0o600)
    asks = ("fetch", REPO, "--config", config, "--json", "-q")
    assert nodes.run("without", *asks, P2PMODEL_ORIGIN_PATIENCE="1").code == 6
    config.write_text(f'{mirror}certificate = "{ca / "node.crt"}"\nkey = "{ca / "node.key"}"\n')
    assert nodes.ok("with", *asks).json["from_mirrors"] == SIZE + 2
