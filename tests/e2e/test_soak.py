"""A short soak: faults in networks that are really apart, with real processes in network namespaces."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from scripts.soaking.network import unavailable
from scripts.soaking.scenario import Topology
from tests.support.processes import ROOT

pytestmark = [pytest.mark.needs("nft", "nginx", "tc"), pytest.mark.xdist_group("swarm"), pytest.mark.timeout(1800)]

SEED = 252
"""All topologies, and each kind of fault at each role."""
SCENARIOS = {0: "01", 1: "012", 2: "01", 3: "012", 4: "012", 5: "12", 6: "012", 7: "02"}
"""The numbers of its short scenarios, by round."""


def test_every_fetch_without_a_fault_of_its_own_ends_in_time(tmp_path: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    names = [f"{number}.{index}" for number, indexes in SCENARIOS.items() for index in indexes]
    figures = tmp_path / "figures.json"
    options = ["--seed", str(SEED), "--quick", "--lenient", "--only", ",".join(names), "--jobs", "4"]
    command = [sys.executable, "-m", "scripts.soaking", *options, "--keep", str(tmp_path), "--json", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(figures.read_text())["scenarios"]
    assert {row["name"] for row in rows if row["faults"]} == set(names)
    assert {row["setting"]["topology"] for row in rows} == {*get_args(Topology)}
    assert {fault["kind"] for row in rows for fault in row["faults"]} == {
        "freeze",
        "unplug",
        "throttle",
        "kill",
        "move",
    }
