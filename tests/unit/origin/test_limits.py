"""A rate limit over all mirrors counts every byte that came, whatever becomes of its reader."""

import pytest

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.core.pace import Pace
from p2pmodel.origin.download.job import MirrorJob
from p2pmodel.origin.origin import Origin
from p2pmodel.origin.responses import ExpectedRange
from tests.support.fake_hub import FakeHub
from tests.support.memory_sink import MemorySink

WEIGHTS = "w/model.safetensors"


@pytest.mark.parametrize("leaves", [False, True])
async def test_bytes_of_a_reader_that_has_enough_count(snapshot, leaves: bool):
    shared, file = Pace(1 << 30), snapshot.file(WEIGHTS)
    async with FakeHub(snapshot) as hub:
        mirrors = [MirrorSettings(name="a", endpoint=hub.url)]
        async with Origin(mirrors, OriginSettings(), pace=shared) as origin:
            job = MirrorJob(origin._pool, snapshot.manifest, file)

            async def deliver(_offset: int, _data: bytes) -> bool:
                return not leaves

            await job.request(origin._pool.mirrors[0], ExpectedRange(snapshot.manifest, file, 0, file.size), deliver)
            assert shared.passed == origin.bytes_by_mirror["a"] > 0


async def test_every_byte_of_reads_and_pulls_counts(snapshot):
    shared, file = Pace(1 << 30), snapshot.file(WEIGHTS)
    async with FakeHub(snapshot) as hub:
        mirrors = [MirrorSettings(name="a", endpoint=hub.url)]
        async with Origin(mirrors, OriginSettings(part_size=1 << 18), pace=shared) as origin:
            await origin.pull(snapshot.manifest, file, MemorySink(file))
            await origin.read(snapshot.manifest, file, 100, 70_000, accept=lambda _: True)
            assert shared.passed == origin.bytes_by_mirror["a"] >= file.size + 70_000
