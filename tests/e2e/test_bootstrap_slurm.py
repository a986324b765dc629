"""`p2pmodel bootstrap --hosts slurm` in an allocation of a real Slurm. On demand: scripts/deploy/try-slurm."""

import json
import os
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cluster_rig import ClusterRig, unavailable
from tests.support.hub_layout import write_snapshot
from tests.support.processes import PATIENCE, Running, eventually
from tests.support.slurm_rig import SlurmRig, missing
from tests.support.stored import CONTENTS

ON_DEMAND = os.environ.get("P2PMODEL_TEST_SLURM") == "1"
SIZE = 128 << 20
REASON = (unavailable() or missing()) if ON_DEMAND else "it is run by scripts/deploy/try-slurm"
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[tuple[ClusterRig, SlurmRig]]:
    with ExitStack() as stack:
        rig = ClusterRig(tmp_path / "rig", 3, stack)
        yield rig, SlurmRig(rig, stack)


def test_a_job_brings_the_model_onto_each_of_its_nodes(slurm: tuple[ClusterRig, SlurmRig], tmp_path: Path) -> None:
    rig, cluster = slurm
    source = tmp_path / "source"
    source.mkdir()
    weights = source / "model.safetensors"
    weights.write_bytes(random.Random(1).randbytes(SIZE))
    endpoint, log = rig.hub(source)
    environment = cluster.allocate()
    state = ["--node-state-dir", str(cluster.local / "state"), "--cache-dir", str(cluster.local / "hub")]

    def bootstrap(*options: str) -> Running:
        command = [sys.executable, "-m", "p2pmodel", "bootstrap", "org/model", "--hosts", "slurm", *state, "--json"]
        python = f"{sys.executable} -m p2pmodel"
        return rig.start("launcher", [*command, "--command", python, "--progress", "plain", *options], **environment)

    first = bootstrap("--endpoint", endpoint).wait(5 * PATIENCE)
    sys.stdout.write(first.err)
    assert first.code == 0, first.err
    for name in rig.names:
        blobs = list((rig.folder / name / "local/hub").glob("models--org--model/snapshots/*/model.safetensors"))
        assert len(blobs) == 1, name
    sent = sum(json.loads(line)["sent"] for line in log.read_text().splitlines())
    assert sent <= 1.05 * SIZE
    seconds = cluster.broadcast(environment, weights)
    for name in rig.names:
        assert (rig.folder / name / "local" / weights.name).stat().st_size == SIZE
    fetch = max(node["seconds"] for node in first.json["nodes"].values())
    ours = f"bootstrap {first.json['seconds']:.1f} s, of that the fetch {fetch:.1f} s"
    sys.stdout.write(f"{SIZE >> 20} MiB to {len(rig.names)} nodes: {ours}; sbcast {seconds:.1f} s, unverified\n")
    again = bootstrap("--endpoint", endpoint).wait(5 * PATIENCE)
    sys.stdout.write(again.err)
    assert (again.code, again.json["changed"]) == (0, False), again.err
    down = bootstrap("--down").wait(5 * PATIENCE)
    sys.stdout.write(down.err)
    assert down.code == 0, down.err
    for name in rig.names:
        commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in rig.processes(name)]
        assert not [command for command in commands if b"p2pmodel\0daemon" in command], commands


def test_a_prolog_lets_jobs_start_and_drains_a_node_without_the_model_on_request(tmp_path: Path) -> None:
    hub, settings = tmp_path / "hub", tmp_path / "settings"
    manifest = write_snapshot(hub, "org/model", CONTENTS)
    root = Path(__file__).parents[2]
    command = f"COMMAND='{sys.executable} -m p2pmodel'\nexport PYTHONPATH={root}\n"
    plain = f"MODELS=org/model\nCACHE={hub}\nSECONDS_EACH=120\n{command}"
    settings.write_text(plain)
    # slurmd gives a prolog neither its own environment nor a HOME.
    prolog, said = tmp_path / "prolog", tmp_path / "said"
    script = root / "p2pmodel/deploy/slurm/p2pmodel.prolog"
    prolog.write_text(f"#!/bin/sh\nexport PROLOG_SETTINGS={settings}\nexec {script} 2>>{said}\n")
    prolog.chmod(0o755)
    with ExitStack() as stack:
        cluster = SlurmRig(ClusterRig(tmp_path / "rig", 1, stack), stack, prolog=prolog)
        done = cluster.run("hostname")
        assert (done.returncode, done.stdout.strip(), said.read_text()) == (0, "gpu001", ""), done.stderr
        (hub / "models--org--model/blobs" / manifest.files[0].etag).unlink()
        done = cluster.run("hostname")
        assert (done.returncode, cluster.reasons()) == (0, ""), done.stderr
        assert "1 file missing of 4 in org/model" in said.read_text()
        settings.write_text(f"{plain}DRAIN=yes\n")
        assert cluster.run("hostname").returncode != 0
        eventually(lambda: "Prolog error" in cluster.reasons(), PATIENCE, cluster.reasons)
