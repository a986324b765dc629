"""Mirrors for some repositories only."""

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import Unavailable
from p2pmodel.origin.relay.request import HubPath, RelayRequest
from tests.support.fake_hub import FakeHub
from tests.support.hub_snapshot import snapshot_of
from tests.support.memory_sink import MemorySink

OURS = snapshot_of({"config.json": b"{}", "m.safetensors": b"w" * 200_000}, "our-org/model")


async def test_a_repository_is_looked_for_at_its_mirrors_only(open_origin):
    async with FakeHub(OURS) as ours, FakeHub(OURS) as public:
        inner = MirrorSettings(name="inner", endpoint=ours.url, repos=("our-org/*",), priority=2)
        outer = MirrorSettings(name="outer", endpoint=public.url, repos=("!our-org/*",), priority=1)
        async with open_origin(inner, outer) as origin:
            found = await origin.listing(Reference(OURS.manifest.repo))
            sink = MemorySink(OURS.file("m.safetensors"))
            await origin.pull(found.manifest, OURS.file("m.safetensors"), sink)
            await origin.probe(found.manifest, OURS.file("m.safetensors"))
            async with origin.relay(RelayRequest("GET", HubPath("/api/models/our-org/model"))) as answer:
                assert answer.status == 200
            with pytest.raises(Unavailable, match=r"no source for org/else@main: no mirror is configured for it"):
                async with open_origin(inner) as only:
                    await only.manifest(Reference(RepoId("org/else")))
        assert public.requests == []
        assert found.mirror == "inner"


async def test_mirrors_of_one_repository_step_in_for_each_other(open_origin):
    async with FakeHub(OURS, faults=["503"]) as down, FakeHub(OURS) as up:
        first = MirrorSettings(name="first", endpoint=down.url, repos=("our-org/*",))
        async with open_origin(first, MirrorSettings(name="all", endpoint=up.url)) as origin:
            sink = MemorySink(OURS.file("m.safetensors"))
            assert await origin.pull(OURS.manifest, OURS.file("m.safetensors"), sink) == ["all"]


@pytest.mark.parametrize(
    ("path", "repo"),
    [
        ("/api/models/org/name/revision/main", "org/name"),
        ("/api/datasets/org/name", "datasets/org/name"),
        ("/org/name/resolve/main/a/b", "org/name"),
        ("/spaces/org/name/resolve/refs%2Fpr%2F1/a", "spaces/org/name"),
        ("/api/models", None),
        ("/api/whoami-v2", None),
        ("/kernels/org/name/resolve/main/a", None),
    ],
)
def test_the_repository_in_a_path(path: str, repo: str | None):
    assert HubPath(path).repo == (RepoId(repo) if repo else None)


@pytest.mark.parametrize("kind", ["datasets", "spaces"])
async def test_datasets_and_spaces_are_listed_and_pulled(open_origin, kind: str):
    data = snapshot_of({"README.md": b"# data", "train.parquet": b"p" * 200_000}, "org/data")
    async with FakeHub(data, kind=kind) as hub, open_origin(hub) as origin:
        found = await origin.manifest(Reference(RepoId(f"{kind}/org/data")))
        assert (str(found.repo), found.files) == (f"{kind}/org/data", data.manifest.files)
        sink = MemorySink(data.file("train.parquet"))
        await origin.pull(found, data.file("train.parquet"), sink)
        assert sink.data == data.contents["train.parquet"]
