"""A coordinator over https with a certificate of a private authority: catalog, leases, announces and the source."""

import random
from pathlib import Path

from tests.support.certificates import authority
from tests.support.processes import Nodes
from tests.support.tls import tls_front

REPO = "org/model"
DEAD = "http://127.0.0.1:9"
SIZE = 3_000_000


def test_nodes_use_a_coordinator_with_a_private_certificate(nodes: Nodes, tmp_path: Path) -> None:
    ca, context = authority(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(random.Random(1).randbytes(SIZE))
    plain = nodes.start("c", "coordinator", "--listen", "127.0.0.1:0", "--json").ready()
    with tls_front(context, str(plain["url"])) as url:
        trust = {"P2PMODEL_COORDINATOR_CA_FILE": str(ca)}
        nodes.seed(source, "--as", REPO, "--coordinator", url, **trust).ready()
        fetch = ("fetch", REPO, "--coordinator", url, "--endpoint", DEAD, "--swarm-listen", "127.0.0.12:0", "--json")
        refused = nodes.run("stranger", *fetch, P2PMODEL_ORIGIN_PATIENCE="1")
        assert refused.code == 6
        assert "certificate not trusted" in refused.err
        assert "coordinator_ca_file" in refused.err
        done = nodes.ok("node", *fetch, **trust).json
        assert done["from_mirrors"] == 0
        assert Path(done["path"], "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
