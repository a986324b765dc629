"""Addresses of a store's objects, signed for some minutes: the credentials themselves leave this machine never."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from cachetools import TTLCache
from yarl import URL

from p2pmodel.core.content.names import printable
from p2pmodel.errors import InvalidInput, Unavailable
from p2pmodel.origin.failures import Refused
from p2pmodel.origin.s3.client import BucketPlace, client_of

VALID = 900
"""Seconds for which an address is signed."""
_KEEP = 300.0
"""Seconds for which a signed address is used again."""
_MOST = 4096
_METHODS = {"GET": "get_object", "HEAD": "head_object"}


class SignedAddresses:
    """The addresses of one store's objects."""

    def __init__(self, place: BucketPlace) -> None:
        self.place = place
        self._client: Any = None
        self._opening = asyncio.Lock()
        self._signed: TTLCache[tuple[str, str], URL] = TTLCache(_MOST, _KEEP, timer=time.monotonic)

    async def url(self, url: URL, method: str) -> URL:
        """The address to request for `s3://BUCKET/KEY`; a query has no meaning there. Raises Refused."""
        key = unquote(url.raw_path).lstrip("/")
        known = self._signed.get((method, key))
        if known is None:
            # In a thread: temporary credentials are renewed over the network.
            known = self._signed[method, key] = URL(
                await asyncio.to_thread(self._sign, await self._opened(), key, method), encoded=True
            )
        return known

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                try:
                    self._client = await asyncio.to_thread(client_of, self.place)
                except InvalidInput as error:
                    raise Refused(str(error), Unavailable) from None
        return self._client

    def _sign(self, client: Any, key: str, method: str) -> str:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - an extra

        try:
            signed = client.generate_presigned_url(
                _METHODS[method], Params={"Bucket": self.place.bucket, "Key": key}, ExpiresIn=VALID
            )
        except BotoCoreError as error:
            raise Refused(f"its credentials cannot be used: {printable(str(error))}", Unavailable) from None
        return str(signed)


def other_region(headers: Mapping[str, str]) -> str:
    """Why a store redirects: the reason for the user."""
    region = headers.get("x-amz-bucket-region", "")
    return f"its bucket is in the region {printable(region, 40)}: set s3_region" if region else "its store redirects"
