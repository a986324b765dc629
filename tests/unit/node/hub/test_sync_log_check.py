"""The sync log of another server: what its answers mean."""

import pytest

from p2pmodel.errors import AccessDenied, NotFound, P2PModelError, Unavailable
from p2pmodel.node.hub.sync_log_check import check_log
from tests.support.web_answers import Page, web_answers


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFound), (401, AccessDenied), (302, Unavailable), (429, Unavailable), (503, Unavailable)],
)
async def test_the_status_decides_about_the_error(status: int, error: type[P2PModelError]):
    async with web_answers({"/sync-log": Page(status)}) as base:
        with pytest.raises(P2PModelError, match="sync-log") as caught:
            await check_log(f"{base}/sync-log")
    assert type(caught.value) is error
