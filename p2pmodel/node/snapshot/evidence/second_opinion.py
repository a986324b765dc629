"""A second opinion on a manifest: several mirrors list the same files for its commit, or nothing of it is published.

Each mirror of the settings is asked for its own listing of the commit, all at once. Enough of them must agree; one that
lists other files is a contradiction, whatever the others say. The answer is kept: a commit never changes.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.core.sizes import counted
from p2pmodel.errors import Contradicted, InvalidInput, LocalResource, Unconfirmed
from p2pmodel.node.snapshot.evidence.voucher import differing
from p2pmodel.origin.origin import Origin
from p2pmodel.store.state.judgements import ConfirmedCommit, ConfirmedCommits


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """Asks for one node. `origin` are the mirrors of the settings; None where none may be asked."""

    settings: Settings
    origin: Origin | None
    clock: Callable[[], float] = time.time

    async def require(self, manifest: Manifest) -> None:
        """Return if `trust.confirm` mirrors list the files of `manifest`. Raises Contradicted naming those that list
        others, Unconfirmed if too few answer, InvalidInput if too few are configured."""
        needed = self.settings.trust.confirm
        if not needed:
            return
        records = confirmed_commits(self.settings)
        known = await asyncio.to_thread(records.of, manifest)
        if known is not None and len(known.mirrors) >= needed:
            return
        agreeing = await self._agreeing(manifest, needed)
        with suppress(LocalResource):  # without a usable state folder the mirrors are asked again
            await asyncio.to_thread(records.record, manifest, ConfirmedCommit(agreeing, self.clock()))

    async def _agreeing(self, manifest: Manifest, needed: int) -> tuple[str, ...]:
        ref = Reference(manifest.repo, manifest.commit)
        servers = {mirror.endpoint for mirror in self.settings.mirrors if mirror.lists_commits_of(manifest.repo)}
        if len(servers) < needed:
            raise InvalidInput(
                f"{needed} mirrors must confirm {ref}, and only {len(servers)} are configured",
                hint="name more mirrors, or lower trust.confirm (--confirm)",
            )
        if self.origin is None:
            raise Unconfirmed(f"no mirror may be asked to confirm {ref}", hint="unset HF_HUB_OFFLINE")
        listings, failures = await self.origin.listings(ref)
        found = {each.mirror: differing(manifest, each.manifest) for each in listings}
        other = [f"{name} ({difference})" for name, difference in found.items() if difference]
        agreeing = tuple(name for name, difference in found.items() if not difference)
        if other:
            same = f"; those that list what was found: {', '.join(agreeing)}" if agreeing else ""
            raise Contradicted(
                f"these mirrors list other files for {ref} than were found: {', '.join(other)}{same}",
                hint="find out which of them are wrong; nothing of this commit is published",
            )
        if len(agreeing) < needed:
            silent = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
            raise Unconfirmed(
                f"{counted(len(agreeing), 'mirror')} of the {needed} that must confirm {ref} answered ({silent})",
                hint="try later, or lower trust.confirm (--confirm)",
            )
        return agreeing


def confirmed_commits(settings: Settings) -> ConfirmedCommits:
    """The records of this node."""
    return ConfirmedCommits(settings.state_dir / "confirmed" if settings.state_dir else None)
