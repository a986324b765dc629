"""The reload of a running server on SIGHUP: settings that can change, token files, certificates."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.errors import P2PModelError

Apply = Callable[[Settings], None]

LIMITS = ("swarm.upload_limit", "swarm.download_limit")
SCRUB = ("store.scrub_rate", "store.scrub_interval")


class Reload:
    """The reloads of one server. Its parts register before `run`; `request` may be called from a signal handler.

    A setting is applied if it differs from what the last reload, or the start, read: values that a client has set
    meanwhile stay otherwise. What cannot be read leaves everything of its kind as it is.
    """

    def __init__(self, settings: Settings, read: Callable[[], Settings], note: Callable[[str], None]) -> None:
        self._settings = settings
        self._read = read
        self._note = note
        self._requested = asyncio.Event()
        self._by_setting: dict[str, Apply] = {}
        self._files: dict[str, Callable[[], None]] = {}
        self._works: dict[str, Callable[[], Awaitable[None]]] = {}

    def setting(self, *keys: str, apply: Apply) -> None:
        """Call `apply` with the new settings, once, when one of the settings `keys` has changed."""
        for key in keys:
            self._by_setting[key] = apply

    def file(self, what: str, again: Callable[[], None]) -> None:
        """Call `again` in a thread at each reload. It raises InvalidInput for a file that cannot be used."""
        self._files[what] = again

    def work(self, what: str, again: Callable[[], Awaitable[None]]) -> None:
        """Await `again` at the end of each reload. It raises InvalidInput for a file that cannot be used."""
        self._works[what] = again

    def request(self) -> None:
        """Reload soon."""
        self._requested.set()

    async def run(self) -> None:
        """Reload at each request until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            await self.reload()

    async def reload(self) -> None:
        """Read everything again, and apply what has changed."""
        await self._reload_settings()
        for what, again in self._files.items():
            try:
                await asyncio.to_thread(again)
            except P2PModelError as error:
                self._failed(what, error)
        for what, work in self._works.items():
            try:
                await work()
            except P2PModelError as error:
                self._failed(what, error)
        self._note(notes.info("reloaded", "reloaded: " + ", ".join(["settings", *self._files, *self._works])))

    async def _reload_settings(self) -> None:
        try:
            now = await asyncio.to_thread(self._read)
        except P2PModelError as error:
            self._failed("settings", error)
            return
        before, self._settings = _flat(self._settings.model_dump()), now
        changed = [key for key, value in _flat(now.model_dump()).items() if before.get(key) != value]
        for apply in dict.fromkeys(self._by_setting[key] for key in changed if key in self._by_setting):
            apply(now)
        for key in changed:
            if key in self._by_setting:
                self._note(notes.info("setting_changed", f"the setting {key} has changed", setting=key))
            else:
                self._note(notes.warning("restart_needed", f"the setting {key} changes at a restart", setting=key))

    def _failed(self, what: str, error: P2PModelError) -> None:
        self._note(notes.error("reload_failed", f"{what}: unchanged, {error}"))


def _flat(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, by keys `section.name`."""
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
