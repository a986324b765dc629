"""Mirrors with certificates of a private authority."""

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import InvalidInput, Unavailable
from tests.support.certificates import authority
from tests.support.fake_hub import FakeHub
from tests.support.memory_sink import MemorySink

pytestmark = pytest.mark.needs("openssl")
CONFIG = "config.json"


async def pull(origin, snapshot):
    sink = MemorySink(snapshot.file(CONFIG))
    await origin.pull(snapshot.manifest, snapshot.file(CONFIG), sink)
    return sink.data


async def test_a_mirrors_own_authority_is_trusted_for_bytes_and_for_metadata(snapshot, open_origin, tmp_path):
    ca_file, context = authority(tmp_path)
    async with FakeHub(snapshot, tls=context, prefix="/hf") as hub:
        mirror = MirrorSettings(name="a", endpoint=hub.url, ca_file=ca_file)
        async with open_origin(mirror) as origin:
            assert await origin.manifest(Reference.parse("org/model")) == snapshot.manifest
            assert await pull(origin, snapshot) == snapshot.contents[CONFIG]
            assert origin.statuses()[0].connect is not None


async def test_it_is_trusted_for_no_other_address(snapshot, open_origin, tmp_path, notes):
    ca_file, context = authority(tmp_path)
    async with FakeHub(snapshot, tls=context) as ours, FakeHub(snapshot, tls=context) as other:
        trusting = MirrorSettings(name="a", endpoint=ours.url, ca_file=ca_file)
        async with open_origin(other, trusting) as origin:
            assert await pull(origin, snapshot) == snapshot.contents[CONFIG]
            assert await origin.manifest(Reference.parse("org/model")) == snapshot.manifest
    assert other.requests == []
    assert any(note.startswith("mirror a failed: certificate not trusted (") for note in notes)
    assert any(note.startswith("mirror a has no manifest: certificate not trusted (") for note in notes)


async def test_a_redirect_to_another_host_does_not_inherit_trust(snapshot, open_origin, tmp_path):
    ca_file, context = authority(tmp_path)
    async with FakeHub(snapshot, tls=context) as storage:
        hub = FakeHub(snapshot, tls=context, faults=["redirect"], redirect_to=storage.url)
        async with hub as found:
            mirror = MirrorSettings(name="a", endpoint=found.url, ca_file=ca_file)
            async with open_origin(mirror, patience=1) as origin:
                with pytest.raises(Unavailable, match="a: certificate not trusted"):
                    await pull(origin, snapshot)
    assert storage.requests == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file or directory"), (b"none", "there is no PEM certificate in it")]
)
def test_a_ca_file_that_is_none_is_named(open_origin, tmp_path, content, message):
    ca_file = tmp_path / "ca.pem"
    if content:
        ca_file.write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        open_origin(MirrorSettings(name="a", endpoint="https://a", ca_file=ca_file))
