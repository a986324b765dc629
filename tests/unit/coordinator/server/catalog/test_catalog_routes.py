"""Sources that nodes name: only addresses that other nodes may reach."""

import pytest

from p2pmodel.coordinator.client.publishing import publish, publish_source
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.torrents import parse
from tests.support.coordinators import RAW, client, coordinator

INFO_HASH = parse(RAW).info_hash


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "169.254.1.1", "[fe80::1]"])
async def test_no_source_is_at_an_address_that_others_cannot_reach(host: str) -> None:
    source = Source(f"http://{host}:6969/source")
    async with coordinator() as (url, _):
        with pytest.raises(InvalidInput, match="no other machine reaches a source"):
            await publish(client(url), RAW, source=source)
        await publish(client(url), RAW)
        with pytest.raises(InvalidInput, match=r"set swarm\.advertise"):
            await publish_source(client(url), INFO_HASH, source)
        await publish_source(client(url), INFO_HASH, Source("http://10.0.0.1:6969/source"))
        await publish_source(client(url), INFO_HASH, Source("http://127.0.0.1:6969/source"))
