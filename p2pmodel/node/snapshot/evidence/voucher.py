"""The voucher of a manifest that came with a torrent: the one place where it is decided whether there is one.

Vouchers, as `status`, `--json` and the sync log name them:

- `mirror NAME`: this mirror lists the same files for the commit;
- `record`: a mirror did so before, and this node has kept a record of it;
- `commit`: the commit of an imported folder is a hash over its files;
- `coordinator`: the setting `swarm.trust` says that a coordinator's word is enough;
- `cache`: no torrent takes part; the manifest is that of a snapshot in this cache;
- `signature NAME`: a key of the settings has signed it, and a rule asks for signatures (`signature_check`). It is
  looked for before a mirror is asked.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import Contradicted, LocalResource, Offline, P2PModelError, Unconfirmed
from p2pmodel.origin.lookup import Listing
from p2pmodel.origin.origin import Origin
from p2pmodel.store.importer import commit_of
from p2pmodel.store.state.judgements import RefusedTorrents, VouchedCommit, VouchedCommits

RECORD = "record"
COMMIT = "commit"
COORDINATOR = "coordinator"
CACHE = "cache"
SIGNATURE = "signature"

HINT = (
    'check the network and the mirrors; where no mirror can be reached, swarm.trust = "coordinator" '
    "(P2PMODEL_SWARM_TRUST) accepts the coordinators' word"
)


@dataclass(frozen=True, slots=True)
class Vouching:
    """Decides for one node. `origin` are the mirrors of the settings, never web seeds; None where none may be asked."""

    settings: Settings
    origin: Origin | None

    @property
    def by_coordinator(self) -> bool:
        """Whether a coordinator's word is enough."""
        return self.settings.swarm.trust == "coordinator"

    async def offhand(self, manifest: Manifest) -> str:
        """The voucher of `manifest`; "" if a mirror must be asked. Sends no request."""
        if self.by_coordinator:
            await self._record(manifest, COORDINATOR, proven=False)
            return COORDINATOR
        known = await self.record_of(Reference(manifest.repo, manifest.commit))
        if known is not None and known.fits(manifest):
            return RECORD
        return COMMIT if commit_of(manifest.files) == manifest.commit else ""

    async def voucher(self, manifest: Manifest) -> str:
        """The voucher of `manifest`; a mirror is asked if need be. Raises Contradicted or Unconfirmed."""
        if found := await self.offhand(manifest):
            return found
        ref = Reference(manifest.repo, manifest.commit)
        try:
            listing = await self.listing(ref)
        except P2PModelError as error:
            raise unconfirmed(ref, error) from None
        return confirmed(manifest, listing)

    async def listing(self, ref: Reference) -> Listing:
        """A mirror's listing of `ref`, which is recorded. Raises Offline where no mirror may be asked, and as
        `Origin.listing`."""
        if self.origin is None:
            raise Offline(f"{ref} is not in this cache, and no mirror may be asked", hint="unset HF_HUB_OFFLINE")
        found = await self.origin.listing(ref)
        await self._record(found.manifest, voucher_of(found), proven=True)
        return found

    async def record_of(self, ref: Reference) -> VouchedCommit | None:
        """The record of a mirror's word on the commit `ref`."""
        known = await asyncio.to_thread(self._records.of, ref.repo, ref.revision)
        return known if known is not None and known.proven else None

    async def _record(self, manifest: Manifest, by: str, *, proven: bool) -> None:
        with suppress(LocalResource):  # a record saves a request; a node without a usable state folder asks again
            await asyncio.to_thread(self._records.record, manifest, by, proven=proven)

    @property
    def _records(self) -> VouchedCommits:
        return vouched_commits(self.settings)


def vouched_commits(settings: Settings) -> VouchedCommits:
    """The records of this node."""
    return VouchedCommits(settings.state_dir / "vouched" if settings.state_dir else None)


def refused_torrents(settings: Settings) -> RefusedTorrents:
    """The torrents that this node does not use again."""
    return RefusedTorrents(settings.state_dir / "refused-torrents.json" if settings.state_dir else None)


def recorded_voucher(settings: Settings, manifest: Manifest) -> str | None:
    """The recorded voucher of a manifest in the cache; None without a record. Raises Contradicted if the record is of
    other files. Blocks."""
    known = vouched_commits(settings).of(manifest.repo, manifest.commit)
    if known is None or known.fits(manifest):
        return known.by if known else None
    raise Contradicted(
        f"the files of {manifest.repo}@{manifest.commit} in this cache are not those that {known.by} listed",
        hint=f"remove the snapshot with 'p2pmodel rm {manifest.repo}@{manifest.commit}' and fetch it again",
    )


def voucher_of(listing: Listing) -> str:
    """How the voucher of a mirror's listing is named."""
    return f"mirror {listing.mirror}"


def confirmed(manifest: Manifest, listing: Listing) -> str:
    """The voucher if `listing` has the files of `manifest`. Raises Contradicted."""
    if difference := differing(manifest, listing.manifest):
        raise Contradicted(
            f"mirror {listing.mirror} lists other files for {manifest.repo}@{manifest.commit}: {difference}",
            hint="these files are not those of the commit, and are not used; name another commit, or none",
        )
    return voucher_of(listing)


def differing(manifest: Manifest, listed: Manifest) -> str:
    """The first difference between the files of two manifests; "" if they are the same."""
    if manifest.commit != listed.commit or manifest.repo != listed.repo:
        return f"it is of {listed.repo}@{listed.commit}"
    ours, theirs = ({file.path: file for file in each.files} for each in (manifest, listed))
    for path in sorted({*ours, *theirs}):
        if path not in theirs:
            return f"it has no {path}"
        if path not in ours:
            return f"it also has {path}"
        if ours[path] != theirs[path]:
            what = "size" if ours[path].size != theirs[path].size else "hash"
            return f"{path} has another {what}"
    return ""


def unconfirmed(ref: Reference, reason: P2PModelError) -> Unconfirmed:
    """The error where a torrent of `ref` is known, and no mirror vouches for it because of `reason`."""
    return Unconfirmed(f"no mirror confirms the torrent of {ref}: {reason.what}", hint=HINT)
