"""A roll-out in real processes: every node is in the report, though the coordinator is killed on the way."""

import asyncio
import json
import random
import signal
from pathlib import Path

import pytest

from p2pmodel.coordinator.client.coordinators import Coordinator
from p2pmodel.coordinator.client.rollouts import RolloutClient
from p2pmodel.coordinator.rollout.report import rollout_report
from p2pmodel.coordinator.rollout.rollout import RolloutSpec, RolloutView
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import Unavailable
from tests.support.processes import Nodes, Running

pytestmark = pytest.mark.xdist_group("swarm")

REPO = "org/model"
SIZE = 12_000_000
RATE = 2_000_000


class Cluster:
    """A slow seeder, a coordinator that keeps its state, a fetch and a daemon; `hosts` are their names."""

    hosts = ("gpu001", "gpu002")

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        source = nodes.root / "source"
        source.mkdir()
        (source / "config.json").write_text("{}")
        (source / "model.safetensors").write_bytes(random.Random(7).randbytes(SIZE))
        self.coordinator = self.start_coordinator("127.0.0.48:0")
        self.url = str(self.coordinator.ready()["url"])
        self.env = {"P2PMODEL_COORDINATORS": self.url, "P2PMODEL_SWARM_TRUST": "coordinator"}
        limits = ("--upload-limit", str(RATE))
        self.commit = str(nodes.seed(source, "--as", REPO, *limits, **self.env).ready()["commit"])

    def start_coordinator(self, listen: str) -> Running:
        state = self.nodes.root / "state"
        return self.nodes.start("coordinator", "coordinator", "--listen", listen, "--state-dir", state, "--json")

    def restart(self) -> None:
        self.coordinator = self.start_coordinator(self.url.removeprefix("http://"))
        self.coordinator.ready()

    def begin(self) -> str:
        token = self.nodes.publish_token.read_text().strip()
        spec = RolloutSpec(RepoId(REPO), self.commit, self.hosts)
        return asyncio.run(RolloutClient(Coordinator(self.url, publish_token=token)).create(spec)).id

    def view(self, ident: str) -> RolloutView:
        return asyncio.run(RolloutClient(Coordinator(self.url)).read(ident))

    def fetch(self, host: str, address: str, *options: str) -> Running:
        return self.nodes.fetch(host, f"{REPO}@{self.commit}", *options, address=address, **self.env)

    def daemon(self, host: str, address: str) -> Running:
        names = ("--node-name", host, "--swarm-listen", f"{address}:0", "--hub-listen", "off")
        return self.nodes.start(host, "daemon", *names, "--json", **self.env)

    def fetch_by_daemon(self, host: str) -> Running:
        return self.nodes.start(host, "fetch", f"{REPO}@{self.commit}", "--json", **self.env)


def test_the_report_is_complete_though_the_coordinator_was_killed(nodes: Nodes) -> None:
    cluster = Cluster(nodes)
    ident = cluster.begin()
    watch = nodes.start("admin", "rollout", "watch", ident, "--json", **cluster.env)
    watch.ready()
    cluster.daemon("gpu002", "127.0.0.12").ready()
    with nodes.together(2):
        by_daemon = cluster.fetch_by_daemon("gpu002")
        fetch = cluster.fetch("gpu001", "127.0.0.11", "--node-name", "gpu001")

    def all_download() -> bool:
        return all(node.phase == "downloading" and node.bytes.received for node in cluster.view(ident).nodes)

    nodes.until(all_download, "both nodes download")
    cluster.coordinator.stop(signal.SIGKILL)
    nodes.until(lambda: "waiting for the coordinator" in "".join(fetch.err), "the end of the download")
    with pytest.raises(Unavailable):
        cluster.view(ident)
    cluster.restart()
    assert (fetch.wait().code, by_daemon.wait().code) == (0, 0)
    assert "Traceback" not in "".join(fetch.err)
    nodes.until(lambda: not cluster.view(ident).open, "the end of the roll-out")
    view = cluster.view(ident)
    report = rollout_report(view)
    assert view.state == "complete"
    assert [node.phase for node in view.nodes] == ["files_ready", "files_ready"]
    assert report.last_gate.last is not None
    assert report.last_gate.last <= view.elapsed
    assert report.model_bytes == SIZE + 2
    assert all(node.bytes.received >= SIZE for node in view.nodes)
    assert report.unlisted == ()
    watched = watch.wait()
    assert watched.code == 0, watched.err
    assert json.loads(watched.out.splitlines()[-1])["state"] == "complete"
    shown = nodes.ok("admin", "rollout", "show", ident, "--plot", nodes.root / "curve.svg", **cluster.env)
    assert "2 of 2 files" in shown.out
    assert "gpu001" in shown.out
    assert "</svg>" in Path(nodes.root / "curve.svg").read_text(encoding="utf-8")
