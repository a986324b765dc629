"""`p2pmodel mirrors` against a quick, a slow and a dead mirror, each a process of its own."""

import csv
import io
import random
from pathlib import Path

import pytest

from tests.support.processes import Nodes

DEAD = "http://127.0.0.1:9"
SIZE = 400_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(random.Random(3).randbytes(SIZE))
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def three(nodes: Nodes, model: Path) -> dict[str, str]:
    """The environment that names a quick, a slow and a dead mirror, and the config that gives them names."""
    quick, slow = nodes.hub(model)[0], nodes.hub(model, "slow:500000")[0]
    config = nodes.root / "three.toml"
    listed = {"slow": slow, "quick": quick, "dead": DEAD}
    tables = (f'[[mirrors]]\nname = "{name}"\nendpoint = "{url}"\nmax_connections = 2' for name, url in listed.items())
    config.write_text("\n".join(tables))
    return {"P2PMODEL_CONFIG": str(config), "P2PMODEL_ORIGIN_PATIENCE": "0.3"}


def by_name(found: dict, name: str) -> dict:
    return next(each for each in found["mirrors"] if each["name"] == name)


def test_probe_and_ls(nodes: Nodes, three: dict[str, str]) -> None:
    before = nodes.ok("node", "mirrors", "ls", "--json", **three).json
    assert [each["name"] for each in before["mirrors"]] == ["slow", "quick", "dead"]
    assert by_name(before, "quick")["rate"] is None
    probed = nodes.ok("node", "mirrors", "probe", "org/model", "--json", **three).json
    quick, slow, dead = (by_name(probed, name) for name in ("quick", "slow", "dead"))
    assert quick["rate"] > 2 * slow["rate"]
    assert 200_000 < slow["rate"] < 1_200_000
    assert (dead["connect"], dead["error"]) == (None, "connection refused")
    known = nodes.ok("node", "mirrors", "ls", "--json", **three).json
    assert by_name(known, "quick")["rate"] == pytest.approx(quick["rate"], rel=1e-3)
    assert by_name(known, "dead")["reason"] == "connection refused"
    lines = nodes.ok("node", "mirrors", "ls", **three).out.splitlines()
    assert lines[0].split()[:4] == ["MIRROR", "ENDPOINT", "REPOSITORIES", "STATE"]
    assert lines[3].endswith("connection refused")


def test_bench_measures_real_downloads(nodes: Nodes, three: dict[str, str]) -> None:
    picture, sheet = nodes.root / "bench.png", nodes.root / "bench.csv"
    found = nodes.ok(
        "node", "mirrors", "bench", "org/model", "--runs", "5", "--json", "--csv", sheet, "--plot", picture, **three
    ).json
    quick, slow, dead = (by_name(found, name) for name in ("quick", "slow", "dead"))
    assert (found["file"], found["size"]) == ("model.safetensors", SIZE)
    assert (quick["runs"], quick["failed"], slow["runs"], slow["failed"]) == (5, 0, 5, 0)
    assert (dead["runs"], dead["failed"], dead["error"]) == (3, 3, "connection refused")
    assert 0.3 < slow["complete"] < 8, "one connection takes 0.8 s, two take 0.4"
    assert slow["average"] == pytest.approx(SIZE / slow["complete"], rel=0.1)
    assert quick["average"] > slow["average"]
    assert quick["peak"] >= quick["p95"] > 0
    assert found["link"] == quick["peak"]
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(sheet.read_text()))}
    assert float(rows["slow"]["complete"]) == slow["complete"]
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(nodes.cache("node").iterdir()) == [], "what was downloaded is gone"


def test_a_retried_run_is_marked(nodes: Nodes, model: Path) -> None:
    flaky, _ = nodes.hub(model, "503:0.2@model.safetensors")
    done = nodes.ok("node", "mirrors", "bench", "org/model", "--runs", "2", "--csv", "-", "-q", "--endpoint", flaky)
    (row,) = csv.DictReader(io.StringIO(done.out))
    assert (row["runs"], row["failed"], row["retried"]) == ("2", "0", "1")
    assert done.err == ""


@pytest.mark.parametrize(
    ("args", "code", "line"),
    [
        (["bench", "org/model", "--file", "nope"], 3, "has no file nope"),
        (["bench", "org/model", "--plot", "x.svg"], 2, "--plot writes a PNG; give a file name that ends in .png"),
        (["bench", "org/model", "--csv", "-", "--json"], 2, "--json and --csv - both write to stdout"),
        (["bench", "org/model", "--csv", "/nowhere/x.csv"], 2, "there is no directory /nowhere for the output"),
        (["bench", "org/model", "--runs", "0"], 2, "Invalid value for '--runs'"),
        (["bench", "no such repo"], 2, "p2pmodel: "),
        (["probe", "a/b/c"], 2, "p2pmodel: "),
        (["probe", "--endpoint", DEAD], 6, "the probe of every mirror failed"),
    ],
)
def test_bad_input_is_one_line(nodes: Nodes, model: Path, args: list[str], code: int, line: str) -> None:
    hub, _ = nodes.hub(model)
    done = nodes.run("node", "mirrors", *args, P2PMODEL_ENDPOINTS=hub)
    assert done.code == code
    assert line in done.err
    assert len(done.err.splitlines()) == 1
