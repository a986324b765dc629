"""Manifests that a node does not hold: from a coordinator, as part of the torrent, else from the mirrors."""

from contextlib import AbstractAsyncContextManager
from typing import Self
from urllib.parse import quote

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import DEFAULT_REVISION, Reference, RepoId
from p2pmodel.core.pace import Pace
from p2pmodel.errors import Offline, P2PModelError
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.voucher import Vouching
from p2pmodel.node.snapshot.reference_search import ReferenceSearch
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.origin.origin import Origin
from p2pmodel.origin.relay.answer import RelayAnswer
from p2pmodel.origin.relay.request import HubPath, RelayRequest


class ManifestSource:
    """`async with` opens and closes its connections to the mirrors. `pace` bounds what is forwarded from them."""

    def __init__(self, settings: Settings, reporter: Reporter, pace: Pace | None = None) -> None:
        self._settings = settings
        self.origin = (
            None if settings.offline else Origin(settings.mirrors, settings.origin, on_note=reporter.note, pace=pace)
        )

    async def __aenter__(self) -> Self:
        if self.origin is not None:
            await self.origin.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self.origin is not None:
            await self.origin.__aexit__(None, None, None)

    @property
    def takes_client_tokens(self) -> bool:
        """Whether a mirror accepts the tokens of clients."""
        return self.origin is not None and any(mirror.takes_client_tokens for mirror in self._settings.mirrors)

    async def manifest(self, ref: Reference) -> Manifest:
        """As `RevisionSource`."""
        return (await self.find(ref, Reporter(), to_share=False)).manifest

    async def find(self, ref: Reference, reporter: Reporter, *, to_share: bool) -> ResolvedTarget:
        """The snapshot of `ref` and its torrent. What is in the cache is no answer. Raises as `find_reference`."""
        vouching = Vouching(self._settings, self.origin)
        return await ReferenceSearch(ref, vouching, None, reporter, to_share=to_share).run()

    def relay(self, request: RelayRequest) -> AbstractAsyncContextManager[RelayAnswer]:
        """As `Origin.relay`. Raises Offline if requests to mirrors are disabled."""
        return self._mirrors(request.path.raw).relay(request)

    async def opens(self, repo: RepoId) -> bool:
        """Whether the node itself may read `repo`: a coordinator lists it, or a mirror serves a file of it for the
        node's own token. A listing is no proof: gated repositories have public ones."""
        ref = Reference(repo, DEFAULT_REVISION)
        try:
            found = await self.find(ref, Reporter(), to_share=False)
            if found.metainfo is not None:
                return True
            for file in found.manifest.files[:1]:
                path = HubPath(f"/{repo}/resolve/{found.manifest.commit}/{quote(file.path)}")
                async with self.relay(RelayRequest("HEAD", path, own=True)):
                    pass
        except P2PModelError:
            return False
        return True

    def _mirrors(self, what: str) -> Origin:
        if self.origin is None:
            raise Offline(f"{what} is not in the cache, and no mirror may be asked", hint="unset HF_HUB_OFFLINE")
        return self.origin
