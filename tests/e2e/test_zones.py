"""Zones in real processes: what is outside comes in through the gateways, and spreads inside."""

import random
from pathlib import Path

from tests.support.processes import Nodes, Running

REPO = "org/model"


def test_a_zone_takes_what_it_needs_through_its_gateways(nodes: Nodes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / f"weights-{number}.safetensors").write_bytes(random.Random(number).randbytes(2_000_000))
    ready = nodes.seed(source, "--as", REPO, "--zone", "a").ready()

    def fetch(number: int) -> Running:
        options = ("--coordinator", ready["coordinator"], "--zone", "b", "--seed-time", "60")
        return nodes.fetch(f"peer{number}", REPO, *options, address=f"127.0.0.{10 + number}", HF_HUB_OFFLINE="1")

    gateways = [fetch(number).ready() for number in (1, 2)]
    crossed = sum(done["from_other_zones"] for done in gateways)
    # What a connection brings after the last look at it is not counted.
    assert 0 < crossed <= 2.1 * ready["size"]
    for number in (3, 4):
        done = fetch(number).ready()
        assert (done["from_peers"], done["from_other_zones"]) == (ready["size"], 0)
