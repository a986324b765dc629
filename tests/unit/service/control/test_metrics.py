"""/metrics, /healthz and /readyz of a real node: every value, equal to that of the control API."""

from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from p2pmodel.core.progress.progress import Progress
from p2pmodel.core.progress.views import (
    FollowedSnapshot,
    FollowView,
    GateTimes,
    LimitsView,
    NodeView,
    ScrubView,
    SpaceView,
    TransferView,
)
from p2pmodel.http.exposition import HEALTH, Traffic, exposition
from p2pmodel.http.server import serving
from p2pmodel.node.node import Node
from p2pmodel.node.snapshot.cache_views import CacheSummary
from p2pmodel.origin.mirrors.health import State as MirrorState
from p2pmodel.origin.mirrors.mirror import MirrorCounters, MirrorStatus
from p2pmodel.service.control.api import NodeApi
from p2pmodel.service.control.app import control_app
from p2pmodel.service.control.metrics import MOST, NodeCollector, NodeSnapshot, add_observation
from p2pmodel.service.metric_families import by_label
from p2pmodel.store.cache import HubCache
from tests.support.node_machine import Machine, machine, torrent, until_state

__all__ = ["machine"]

LOOKED = "it is active: "
"""The reason once the node has compared its files with the records by itself, a moment after they changed."""

VIEW = TransferView(
    id="0123456789ab",
    repo="org/model",
    commit="c" * 40,
    revisions=("main",),
    state="active",
    complete=False,
    priority=0,
    added=1.0,
    path="/hub/x",
    size=100,
    progress=Progress(
        "downloading", 100, 60, 10, 20, 30, uploaded=7, peers=3, download_rate=5, rejected=2, from_seeders=15
    ),
    rate=8,
    eta=5.0,
)
MIRROR = MirrorStatus("official", "https://hf.example", MirrorState.SLOW, 0.05, 0.1, None, "")
SEEN = NodeSnapshot(
    node=NodeView("1.2", "/hub", "127.0.0.1:1", 1),
    transfers=(VIEW,),
    mirrors=(MIRROR,),
    counters={"official": MirrorCounters(40, 4, 3, 1)},
    limits=LimitsView(1, 2, 3, 4),
    cache=CacheSummary(5, 600, 7000, 1),
    scrub=ScrubView(read=8000, found=2, ended=1.5),
)


def figures(body: bytes) -> dict[str, float]:
    """Every sample, by its name and its labels."""
    families = text_string_to_metric_families(body.decode())
    samples = [sample for family in families for sample in family.samples]
    found = {name(s.name, s.labels): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def name(metric: str, labels: dict[str, str]) -> str:
    return metric + "".join(f" {key}={value}" for key, value in sorted(labels.items()) if key != "commit")


def test_the_figures_of_follow_lists() -> None:
    here = FollowedSnapshot("org/model", "main", "c" * 40, "0123456789ab", "seeding", complete=True)
    lists = (
        FollowView("org/model", "main", (), (), "22:00-06:00", "UTC", True, 9.0, (here,), checked=7.0),
        FollowView("org/*", "v*", (), (), "", "", True, None, (replace(here, complete=False),), error="no answer"),
        FollowView("org/*", "v*", ("a",), (), "", "", True, None),
    )
    found = figures(exposition([NodeCollector(replace(SEEN, transfers=(), follow=lists))]))
    assert {key: value for key, value in found.items() if "follow" in key} == {
        "p2pmodel_follow_window_open repo=org/* revision=v*": 1,
        "p2pmodel_follow_window_open repo=org/model revision=main": 1,
        "p2pmodel_follow_failed repo=org/* revision=v*": 1,
        "p2pmodel_follow_failed repo=org/model revision=main": 0,
        "p2pmodel_follow_incomplete_snapshots repo=org/* revision=v*": 1,
        "p2pmodel_follow_incomplete_snapshots repo=org/model revision=main": 0,
        "p2pmodel_follow_checked_timestamp_seconds repo=org/model revision=main": 7,
    }


def test_the_space_of_the_cache() -> None:
    space = SpaceView(budget=100, used=130, over=20, removed=3, freed=60)
    found = figures(exposition([NodeCollector(replace(SEEN, space=space))]))
    assert {name: found[f"p2pmodel_cache_{name}"] for name in ("budget_bytes", "used_bytes", "over_budget_bytes")} == {
        "budget_bytes": 100,
        "used_bytes": 130,
        "over_budget_bytes": 20,
    }
    assert found["p2pmodel_cache_removed_snapshots_total"] == 3
    assert found["p2pmodel_cache_freed_bytes_total"] == 60
    assert "p2pmodel_cache_used_bytes" not in figures(exposition([NodeCollector(SEEN)])), "there was no look"


def test_every_figure_of_a_transfer() -> None:
    found = figures(exposition([NodeCollector(SEEN)]))
    of = {key.removesuffix(" repo=org/model"): value for key, value in found.items() if key.endswith(" repo=org/model")}
    assert of == {
        "p2pmodel_snapshot_ready": 0,
        "p2pmodel_transfer_doubted_files": 0,
        "p2pmodel_engine_ready": 0,
        "p2pmodel_transfer_active": 1,
        "p2pmodel_transfer_size_bytes": 100,
        "p2pmodel_transfer_done_bytes": 60,
        "p2pmodel_transfer_eta_seconds": 5,
        "p2pmodel_transfer_rate_bytes_per_second": 8,
        "p2pmodel_transfer_peers": 3,
        "p2pmodel_transfer_peer_upload_bytes_per_second": 0,
        "p2pmodel_transfer_uploaded_bytes_total": 7,
        "p2pmodel_transfer_corrupt_pieces_total": 2,
        "p2pmodel_transfer_origin_ratio": 0.6,
    }
    for source, count in (("cache", 10), ("peer", 5), ("web_seed", 15), ("mirror", 30)):
        assert found[f"p2pmodel_transfer_verified_bytes_total repo=org/model source={source}"] == count
    assert found["p2pmodel_transfers state=active"] == 1
    assert found["p2pmodel_transfers state=failed"] == 0


def test_each_gate_that_was_passed_has_its_time() -> None:
    view = replace(VIEW, gates=GateTimes(files=10.0, loaded=12.5))
    found = figures(exposition([NodeCollector(replace(SEEN, transfers=(view,)))]))
    gates = {key: value for key, value in found.items() if "gate_timestamp" in key}
    metric = "p2pmodel_transfer_gate_timestamp_seconds"
    assert gates == {f"{metric} gate=files repo=org/model": 10, f"{metric} gate=loaded repo=org/model": 12.5}


def test_every_figure_of_the_mirrors_the_cache_and_the_limits() -> None:
    found = figures(exposition([NodeCollector(SEEN)]))
    assert found["p2pmodel_mirror_state mirror=official state=slow"] == 1
    assert found["p2pmodel_mirror_state mirror=official state=quarantined"] == 0
    assert found["p2pmodel_mirror_up mirror=official"] == 1
    assert found["p2pmodel_mirror_connect_seconds mirror=official"] == 0.05
    assert found["p2pmodel_mirror_first_byte_seconds mirror=official"] == 0.1
    assert "p2pmodel_mirror_bytes_per_second mirror=official" not in found
    counted = ("received_bytes", "wasted_bytes", "failovers", "quarantines")
    assert [found[f"p2pmodel_mirror_{each}_total mirror=official"] for each in counted] == [40, 4, 3, 1]
    assert [found[f"p2pmodel_cache_{each}"] for each in ("bytes", "snapshots", "free_bytes")] == [600, 5, 7000]
    assert found["p2pmodel_limit_bytes_per_second direction=upload"] == 3
    assert found["p2pmodel_limit_bytes_per_second direction=download"] == 4
    assert found["p2pmodel_node_info version=1.2"] == 1


@pytest.mark.parametrize("state", MirrorState)
def test_a_mirror_is_up_while_it_is_used(state: MirrorState) -> None:
    found = figures(exposition([NodeCollector(replace(SEEN, mirrors=(replace(MIRROR, state=state),)))]))
    up = {MirrorState.UNUSED: None, MirrorState.FAILING: 0, MirrorState.QUARANTINED: 0}.get(state, 1)
    assert found.get("p2pmodel_mirror_up mirror=official") == up, "of a mirror that was not asked nothing is known"


def test_unknown_values_are_absent() -> None:
    view = replace(VIEW, eta=None, progress=Progress("finding"))
    found = figures(exposition([NodeCollector(replace(SEEN, transfers=(view,)))]))
    assert "p2pmodel_transfer_eta_seconds repo=org/model" not in found
    assert "p2pmodel_transfer_origin_ratio repo=org/model" not in found


def test_labels_are_bounded() -> None:
    views = tuple(
        replace(VIEW, repo=f"org/m{number}", added=float(number), complete=number % 2 == 1)
        for number in range(3 * MOST)
    )
    found = figures(exposition([NodeCollector(replace(SEEN, transfers=views))]))
    shown = {key for key in found if key.startswith("p2pmodel_snapshot_ready")}
    assert len(shown) == MOST
    assert all(found[key] == 0 for key in shown), "those that are on their way go first"
    assert found["p2pmodel_transfers state=active"] == 3 * MOST
    counters = by_label(
        [
            ("official", MirrorCounters(1)),
            ("webseed http://a", MirrorCounters(2)),
            ("webseed http://b", MirrorCounters(3)),
        ],
        {"official"},
    )
    assert counters == {"official": MirrorCounters(1), "others": MirrorCounters(5)}


def test_a_name_from_outside_cannot_break_the_format() -> None:
    nasty = 'a"} 1\np2pmodel_x{y="\\'
    found = figures(exposition([NodeCollector(replace(SEEN, mirrors=(replace(MIRROR, name=nasty),), counters={}))]))
    assert found[f"p2pmodel_mirror_connect_seconds mirror={nasty}"] == 0.05


class Watched:
    """A node over HTTP."""

    def __init__(self, node: Node, base: str, session: aiohttp.ClientSession) -> None:
        self.node = node
        self._base = base
        self._session = session

    async def get(self, path: str, **options: object) -> tuple[int, bytes]:
        async with self._session.get(self._base + path, **options) as response:  # type: ignore[arg-type]
            return response.status, await response.read()

    async def ready(self, model: str) -> tuple[int, dict[str, object]]:
        async with self._session.get(f"{self._base}/readyz", params={"model": model}) as response:
            return response.status, await response.json()


def application(node: Node, token: str | None = None) -> web.Application:
    app = control_app(NodeApi(node), token, public=(HEALTH,))
    add_observation(app, NodeApi(node), Traffic())
    return app


@pytest.fixture
async def watched(machine: Machine) -> AsyncIterator[Watched]:
    async with (
        machine.running() as node,
        serving(application(node), "127.0.0.1", 0, grace=0.2) as base,
        aiohttp.ClientSession() as session,
    ):
        yield Watched(node, base, session)


async def test_a_scrape_matches_the_node(watched: Watched, machine: Machine) -> None:
    await machine.seeder()
    ident = (await watched.node.start(torrent(machine.swarm))).id
    await until_state(watched.node, ident, "seeding")
    status, body = await watched.get("/metrics")
    assert status == 200
    found = figures(body)
    size = machine.swarm.metainfo.manifest.total_size
    assert found["p2pmodel_snapshot_ready repo=org/model"] == 1
    assert found["p2pmodel_transfer_verified_bytes_total repo=org/model source=peer"] == size
    assert found["p2pmodel_engine_ready repo=org/model"] == 0
    watched.node.set_engine(ident, "loaded")
    assert figures((await watched.get("/metrics"))[1])["p2pmodel_engine_ready repo=org/model"] == 1
    blobs = {file.etag: file.size for file in machine.swarm.metainfo.manifest.files}
    assert found["p2pmodel_cache_bytes"] == sum(blobs.values()) < size
    assert found["p2pmodel_cache_free_bytes"] > 0


async def test_a_model_is_ready_once_it_is_complete_and_verified(watched: Watched, machine: Machine) -> None:
    commit = machine.swarm.snapshot.commit
    for model in (f"org/model@{commit}", "org/model", f"org/model@{'0' * 40}"):
        assert await watched.ready(model) == (
            503,
            {
                "model": str(model if "@" in model else "org/model@main"),
                "ready": False,
                "reason": "it is not in this cache",
            },
        )
    ident = (await watched.node.start(torrent(machine.swarm))).id
    status, said = await watched.ready(f"org/model@{commit}")
    assert status == 503
    assert str(said["reason"]).startswith("it is active: ")
    await machine.seeder()
    await until_state(watched.node, ident, "seeding")
    assert (await watched.ready(f"org/model@{commit}"))[0] == 200
    repo = HubCache(machine.settings.cache_dir).repo(machine.swarm.metainfo.manifest.repo)
    file = next(file for file in machine.swarm.metainfo.manifest.files if file.size)
    repo.forget_verified(file)
    status, said = await watched.ready(f"org/model@{commit}")
    assert status == 503
    assert "are not verified" in str(said["reason"]) or LOOKED in str(said["reason"])
    repo.blob_path(file).unlink()
    reason = str((await watched.ready(f"org/model@{commit}"))[1]["reason"])
    assert "are missing" in reason or LOOKED in reason


async def test_the_requested_files_are_enough(watched: Watched, machine: Machine) -> None:
    await machine.seeder()
    ident = (await watched.node.start(torrent(machine.swarm, include=("config.json",)))).id
    await until_state(watched.node, ident, "seeding")
    assert (await watched.ready(f"org/model@{machine.swarm.snapshot.commit}"))[0] == 200


async def test_the_node_itself_is_healthy_and_ready(watched: Watched) -> None:
    assert await watched.get(HEALTH) == (200, b'{"status": "ok"}')
    assert (await watched.get("/readyz"))[0] == 200
    assert (await watched.ready("no such name"))[0] == 400


async def test_only_health_needs_no_token(machine: Machine) -> None:
    async with (
        machine.running() as node,
        serving(application(node, "sesame-sesame"), "127.0.0.1", 0, grace=0.2) as base,
        aiohttp.ClientSession() as session,
    ):
        watched = Watched(node, base, session)
        assert [(await watched.get(path))[0] for path in (HEALTH, "/readyz", "/metrics")] == [200, 401, 401]
        headers = {"Authorization": "Bearer sesame-sesame"}
        assert (await watched.get("/metrics", headers=headers))[0] == 200
