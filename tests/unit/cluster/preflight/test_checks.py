"""The judgement of a node's facts."""

from dataclasses import replace

import pytest

from p2pmodel.cluster.preflight.checks import (
    SPARE,
    DaemonFact,
    GpuFact,
    NodeFacts,
    PortFact,
    PreflightReport,
    SnapshotNeed,
    SourceFact,
    diagnosed,
    estimate,
    words,
)

GB = 10**9
FACTS = NodeFacts(
    version="1.0",
    node="gpu001",
    cache_dir="/cache",
    state_dir="/state",
    socket="/state/p2pmodel.sock",
    free=100 * GB,
    unwritable="",
    open_files=65536,
    cores=8,
    sha_cores=8,
    memory=64 * GB,
    link=1.25e9,
    trusts_coordinator=False,
    offline=False,
    ports=(PortFact("peers", "10.0.0.1:6881", taken=False, fixed=False),),
    mirrors=(SourceFact("hub", connect=0.01, rate=1e8),),
    coordinators=(SourceFact("10.0.0.9:6969", clock=0.0),),
)
NEED = SnapshotNeed("org/model", "a" * 40, size=20 * GB, missing=20 * GB, staged=0, weights=19 * GB)


def judged(facts: NodeFacts = FACTS, need: SnapshotNeed | None = NEED, *, load: bool = False) -> PreflightReport:
    return diagnosed(facts, need, version="1.0", load=load)


def test_a_sound_node_passes_every_check() -> None:
    assert {check.outcome for check in judged().checks} == {"ok"}
    assert judged().passed


@pytest.mark.parametrize(
    ("change", "name", "text"),
    [
        ({"version": "0.9"}, "version", "0.9, not 1.0"),
        ({"daemon": DaemonFact("0.9", "/cache", "x")}, "version", "the running daemon is 0.9"),
        ({"daemon": DaemonFact("1.0", "/other", "x")}, "daemon", "/other"),
        ({"unwritable": "cannot write to /cache"}, "cache", "cannot write"),
        ({"free": 20 * GB + SPARE - 1}, "disk", "that are missing"),
        ({"ports": (PortFact("peers", "10.0.0.1:7000", taken=True, fixed=True),)}, "port", "another program"),
        ({"coordinators": (SourceFact("c", error="connection refused"),)}, "coordinator", "connection refused"),
        ({"mirrors": (SourceFact("hub", error="no route"),)}, "mirrors", "hub: no route"),
        ({"mirrors": (), "offline": True}, "mirrors", "HF_HUB_OFFLINE"),
        ({"open_files": 256}, "open files", "256"),
    ],
)
def test_each_fault_fails_its_check_with_a_hint(change: dict[str, object], name: str, text: str) -> None:
    found = judged(replace(FACTS, **change))
    assert [check.name for check in found.failed] == [name]
    assert text in found.failed[0].found
    assert found.failed[0].hint


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"ports": (PortFact("peers", "10.0.0.1:6881", taken=True, fixed=False),)}, "port"),
        ({"coordinators": (SourceFact("c", clock=-300.0),)}, "clock"),
        ({"open_files": 1024}, "open files"),
        ({"sha_cores": 0}, "cores"),
    ],
)
def test_what_only_slows_or_misleads_is_a_warning(change: dict[str, object], name: str) -> None:
    found = judged(replace(FACTS, **change))
    assert found.passed
    assert [check.name for check in found.checks if check.outcome == "warning"] == [name]


def test_what_is_on_the_disk_already_needs_no_space() -> None:
    staged = replace(NEED, missing=15 * GB, staged=14 * GB)
    assert judged(replace(FACTS, free=2 * GB), staged).passed
    complete = replace(NEED, missing=0)
    assert judged(replace(FACTS, free=0, mirrors=()), complete).passed


def test_without_mirrors_the_coordinators_word_may_be_enough() -> None:
    facts = replace(FACTS, mirrors=(SourceFact("hub", error="no route"),), trusts_coordinator=True)
    assert judged(facts).passed
    assert not judged(replace(facts, trusts_coordinator=False)).passed


def test_the_model_must_fit_on_the_gpus_together() -> None:
    two = (GpuFact("H200", 12 * GB, 11 * GB),) * 2
    assert judged(replace(FACTS, gpus=two), load=True).passed
    assert [check.name for check in judged(replace(FACTS, gpus=two[:1]), load=True).failed] == ["gpu"]
    assert judged(load=True).checks[-1].outcome == "warning"
    assert [check.name for check in judged(replace(FACTS, memory=GB), load=True).failed] == ["gpu"]


def test_the_estimate_is_of_the_slowest_known_link() -> None:
    assert estimate(FACTS, NEED) == pytest.approx(20 / 1.25 * 1.3)
    alone = replace(FACTS, coordinators=())
    assert estimate(alone, NEED) == pytest.approx(200 * 1.3)
    assert estimate(replace(alone, link=None, mirrors=()), NEED) is None
    assert estimate(FACTS, replace(NEED, missing=0)) == 0.0
    assert words(judged(need=None)) == ""
    assert "no link reports" in words(judged(replace(FACTS, link=None)))
