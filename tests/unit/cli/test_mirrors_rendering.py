"""The output of a benchmark: the same figures as a table and as CSV."""

import csv
import io
import sys

import pytest

from p2pmodel.cli.mirrors.bench import as_csv, check_plot, report, table
from p2pmodel.cli.terminal.output import aligned
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import EntryNotFound, InvalidInput, LocalResource
from p2pmodel.node.measure.bench import MirrorBenchResult, chosen
from p2pmodel.origin.mirrors.throughput import BenchRun

FILE = ManifestFile("model.safetensors", 50_000_000, "b" * 40, "a" * 64)
EMPTY = ManifestFile("empty", 0, "c" * 40, None)
MANIFEST = Manifest(RepoId("org/model"), "d" * 40, (FILE, EMPTY))
QUICK = BenchRun(FILE.size, 0.5, 0.0123, 0.045, rates=(1e8,))
RETRIED = BenchRun(FILE.size, 1.0, 0.0123, 0.045, rates=(5e7,), retried=True)
BROKEN = BenchRun(FILE.size, None, None, None, error="connection refused")


@pytest.fixture
def benched() -> MirrorBenchResult:
    endpoints = {"cdn": "http://cdn.test", "down": "http://down.test"}
    return MirrorBenchResult(MANIFEST, FILE, endpoints, {"cdn": [QUICK, RETRIED], "down": [BROKEN, BROKEN]})


def test_the_table(benched):
    assert table(report(benched, 1.25e8)).splitlines() == [
        "model.safetensors of org/model@dddddddddddd, 50.0 MB",
        "MIRROR  CONNECT  FIRST BYTE  COMPLETE  AVERAGE    PEAK        P95         OF LINK  FAILED  RETRIED",
        "cdn     12.3 ms  45.0 ms     0.75 s    66.7 MB/s  100.0 MB/s  100.0 MB/s  53%      0 of 2  1 of 2",
        "down    -        -           -         -          -           -           -        2 of 2  0 of 2",
        "link: 125.0 MB/s (stated)",
        "down failed: connection refused",
    ]


def test_without_a_stated_link_the_best_rate_counts(benched):
    found = report(benched, None)
    assert (found["link"], found["link_is"]) == (1e8, "the best rate measured")
    assert found["mirrors"][0]["utilisation"] == pytest.approx(2 / 3)


def test_csv_has_the_same_figures(benched):
    found = report(benched, None)
    first, second = csv.DictReader(io.StringIO(as_csv(found)))
    assert first["name"] == "cdn"
    assert float(first["average"]) == found["mirrors"][0]["average"]
    assert (first["runs"], first["retried"], first["link_is"]) == ("2", "1", "the best rate measured")
    assert (second["failed"], second["average"], second["error"]) == ("2", "", "connection refused")


def test_columns_line_up():
    assert aligned(("A", "LONG"), [("xyz", "1"), ("", "22")]) == "A    LONG\nxyz  1\n     22"


def test_the_choice_of_the_measured_file():
    assert chosen(MANIFEST, None) is FILE
    assert chosen(MANIFEST, "model.safetensors") is FILE
    with pytest.raises(EntryNotFound, match=r"has no file other"):
        chosen(MANIFEST, "other")
    with pytest.raises(InvalidInput, match="empty is empty"):
        chosen(MANIFEST, "empty")


def test_without_matplotlib_a_picture_is_refused_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        LocalResource, match=r"^--plot needs matplotlib, which is not installed; pip install 'p2pmodel\["
    ):
        check_plot(tmp_path / "bench.png")
