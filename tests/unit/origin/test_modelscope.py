"""Files of ModelScope in the place of the hub's: same path, size and hash, whatever the revision is called there."""

import asyncio

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import Unavailable
from p2pmodel.origin.failures import Refused
from p2pmodel.origin.mirrors.health import State
from p2pmodel.origin.modelscope import listing_of
from tests.support.fake_hub import FakeHub
from tests.support.fake_modelscope import FakeModelScope
from tests.support.hub_snapshot import snapshot_of
from tests.support.memory_sink import MemorySink

SNAPSHOT = snapshot_of(
    {
        "config.json": b'{"a": 1}',
        "tokenizer.json": b"hub",
        "w/one.safetensors": b"1" * 300_000,
        "w/two.safetensors": b"2" * 300_000,
        "w/three.safetensors": b"3" * 300_000,
    }
)
OTHERS = {
    **SNAPSHOT.contents,
    "w/two.safetensors": b"x" * 300_000,  # another content of the same size
    "w/three.safetensors": b"3" * 299_999,
    "tokenizer.json": b"its",  # the same size, and no hash of the hub to compare
}
del OTHERS["config.json"]


def settings(scope: FakeModelScope) -> MirrorSettings:
    return MirrorSettings(name="scope", endpoint=scope.url, kind="modelscope", priority=-1)


async def pulled(origin, path: str) -> None:
    sink = MemorySink(SNAPSHOT.file(path))
    await origin.pull(SNAPSHOT.manifest, SNAPSHOT.file(path), sink)
    assert sink.data == SNAPSHOT.contents[path]


async def test_files_that_differ_come_from_the_hub_alone(open_origin):
    async with FakeModelScope("org/model", OTHERS) as scope, FakeHub(SNAPSHOT) as hub:
        near = MirrorSettings(name="hub", endpoint=hub.url)
        async with open_origin(settings(scope), near) as origin:
            assert await origin.manifest(Reference(RepoId("org/model"))) == SNAPSHOT.manifest
            await asyncio.gather(*(pulled(origin, path) for path in SNAPSHOT.contents))
            states = {status.name: status.state for status in origin.statuses()}
        assert set(scope.sent) == {"w/one.safetensors", "tokenizer.json"}
        assert not hub.asked("w/one.safetensors")
        assert all(hub.asked(path) for path in ("w/two.safetensors", "w/three.safetensors", "config.json"))
        assert scope.asked == 1
    assert states["scope"] is not State.QUARANTINED, "another file of the same size is no lie"


async def test_it_names_no_commits_of_the_hub(open_origin):
    async with FakeModelScope("org/model", OTHERS) as scope, open_origin(settings(scope)) as origin:
        with pytest.raises(Unavailable, match="no mirror of org/model lists the hub's commits"):
            await origin.manifest(Reference(RepoId("org/model")))


async def test_a_repository_that_it_lacks_comes_from_the_hub(open_origin):
    async with FakeModelScope("org/other", OTHERS) as scope, FakeHub(SNAPSHOT) as hub:
        async with open_origin(settings(scope), hub) as origin:
            await pulled(origin, "w/one.safetensors")
        assert not scope.sent


@pytest.mark.parametrize("answer", [{"Code": 10010205001, "Message": "no"}, {"Code": 500}])
def test_an_error_in_its_own_words_is_none_of_a_network(answer: dict[str, object]):
    with pytest.raises(Refused, match="it lists no files"):
        listing_of(answer)


@pytest.mark.parametrize("files", [3, [3], [{"Path": 3, "Size": 1}], [{"Path": "a", "Size": "1"}], [{}]])
def test_an_answer_of_another_shape_is_refused(files: object):
    with pytest.raises((TypeError, KeyError)):
        listing_of({"Code": 200, "Data": {"Files": files}})
