"""The snapshots in a cache that the rules on signatures refuse now: what a server holds is judged again.

A signature may stop counting after its snapshot has come: its key is revoked, or no longer allowed. `look` judges all
of them by the files of the settings as they are then. Servers look when they start, and at each reload.
"""

import asyncio
from collections.abc import Callable, Iterable

from p2pmodel.config.sections.trust import rule_of
from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.errors import P2PModelError, Untrusted
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.signature_check import SignatureCheck
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.snapshot_list import snapshots

_Key = tuple[str, str]
"""Folded name of a repository, and commit."""


class HeldSnapshots:
    """The snapshots of `cache` and those in `arriving`. `on_refused` gets each that is refused from now on."""

    def __init__(
        self,
        cache: HubCache,
        settings: Settings,
        note: Callable[[str], None],
        *,
        arriving: Callable[[], Iterable[Manifest]] = tuple,
        on_refused: Callable[[Manifest, Untrusted], None] = lambda _manifest, _error: None,
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._note = note
        self._arriving = arriving
        self._on_refused = on_refused
        self._refused: dict[_Key, str] = {}
        self._looking = asyncio.Lock()

    def check(self, manifest: Manifest) -> None:
        """Raise Untrusted if the last look refused the snapshot."""
        if what := self._refused.get(_key(manifest)):
            raise Untrusted(what, hint="ask the operator")

    async def run(self) -> None:
        """Look once. What cannot be judged is noted."""
        try:
            await self.look()
        except P2PModelError as error:
            self._note(notes.error("signatures_unchecked", f"signatures are not checked again: {error}"))

    async def look(self) -> None:
        """Judge all again. Raises InvalidInput where the allowed signers cannot be read: nothing changes then."""
        if all(rule.signature != "enforce" for rule in self._settings.trust.rules):
            return
        async with self._looking:
            held = {_key(each): each for each in (*await asyncio.to_thread(self._held), *self._arriving())}
            check = SignatureCheck(self._settings, Reporter())
            found: dict[_Key, Untrusted] = {}
            for key, manifest in held.items():
                try:
                    await check.require(manifest, warned=True)
                except Untrusted as error:
                    found[key] = error
            before, self._refused = self._refused, {key: refusal.what for key, refusal in found.items()}
        for key, refusal in found.items():
            if before.get(key) != refusal.what:
                repo, commit = str(held[key].repo), held[key].commit
                line = f"not served any more: {refusal.what}"
                self._note(notes.warning("snapshot_refused", line, repo=repo, commit=commit))
                self._on_refused(held[key], refusal)

    def _held(self) -> list[Manifest]:
        rules = self._settings.trust.rules
        return [each.manifest for each in snapshots(self._cache) if rule_of(rules, each.repo) is not None]


def _key(manifest: Manifest) -> _Key:
    return manifest.repo.folded, manifest.commit
