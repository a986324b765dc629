"""Reading of the bodies of responses, block by block."""

import aiohttp
from aiohttp.http import HttpProcessingError

from p2pmodel.origin.failures import Failed, failure_of

NETWORK_ERRORS = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""What aiohttp raises for a request that fails on the way."""


async def next_block(response: aiohttp.ClientResponse, most: int) -> tuple[bytes, Failed | None]:
    """The bytes in the buffer, at most `most`; empty at the end of the body or after a failure."""
    try:
        return await response.content.read(most), None
    except NETWORK_ERRORS as error:
        return b"", failure_of(error)
