"""JSON messages posted to a URL in order, from a queue, so that the sender never waits."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Self
from urllib.parse import urlsplit

import aiohttp

from p2pmodel.core import notes
from p2pmodel.core.backoff import doubled
from p2pmodel.core.network.proxies import DIRECT, Proxies
from p2pmodel.http_pool import through
from p2pmodel.origin.failures import reason_of, retryable

_TRIES = 3
_PAUSE = 0.5
_TIMEOUT = 5.0
_QUEUE = 100
_DRAIN = 5.0


class Webhook:
    """Tries to post each message up to three times. `async with` starts it; its end waits 5 s for queued messages.

    `proxies` is the rule for the proxy; raises InvalidInput for one that cannot be used. `on_note` receives a line when
    a message is lost. The line has only the host of the URL, which may hold a secret.
    """

    def __init__(
        self, url: str, on_note: Callable[[str], None], *, pause: float = _PAUSE, proxies: Proxies = DIRECT
    ) -> None:
        self._url = url
        self._proxy = proxies.of(url)
        self._host = urlsplit(url).hostname or "?"
        self._on_note = on_note
        self._pause = pause
        self._queue: asyncio.Queue[Mapping[str, object]] = asyncio.Queue(_QUEUE)

    def post(self, message: Mapping[str, object]) -> None:
        """Queue `message`. A full queue drops it, with a note."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._on_note(
                notes.warning(
                    "webhook_slow", f"the webhook at {self._host} is too slow: a message was dropped", host=self._host
                )
            )

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT), cookie_jar=aiohttp.DummyCookieJar()
        )
        self._worker = asyncio.ensure_future(self._work())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        try:
            async with asyncio.timeout(_DRAIN):
                await self._queue.join()
        except TimeoutError:
            self._on_note(
                notes.warning(
                    "webhook_slow", f"the webhook at {self._host} is too slow: messages were dropped", host=self._host
                )
            )
        finally:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            await self._session.close()

    async def _work(self) -> None:
        while True:
            message = await self._queue.get()
            try:
                await self._deliver(message)
            finally:
                self._queue.task_done()

    async def _deliver(self, message: Mapping[str, object]) -> None:
        reason = ""
        for number in range(_TRIES):
            if number:
                await asyncio.sleep(doubled(self._pause, number, _TIMEOUT))
            try:
                sent = through(self._proxy, self._url, {})
                async with self._session.post(self._url, json=message, allow_redirects=False, **sent) as answer:
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = reason_of(error)
                continue
            if 200 <= status < 300:
                return
            reason = f"HTTP {status}"
            if not retryable(status):
                break
        if self._proxy is not None:
            reason = f"by proxy {self._proxy.name}: {reason}"
        self._on_note(
            notes.warning(
                "webhook_failed", f"a message to the webhook at {self._host} failed: {reason}", host=self._host
            )
        )
