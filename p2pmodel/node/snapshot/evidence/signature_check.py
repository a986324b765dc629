"""Whether a snapshot has the signature that the rules of the settings require: the one place where it is decided.

It is asked for every snapshot before any of it is downloaded: with its torrent, or without one where the mirrors alone
are used; in fetches, in the daemon, in mirrors and before seeding. Statements come from what is beside a torrent, from
the records of this node, from the folder of the settings, then from the coordinators.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from p2pmodel.config.sections.trust import TrustRule, rule_of
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.coordinator.client.signatures import find_signatures
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.errors import LocalResource, Untrusted
from p2pmodel.http_pool import HttpPool
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.second_opinion import SecondOpinion
from p2pmodel.node.snapshot.evidence.voucher import SIGNATURE, vouched_commits
from p2pmodel.node.snapshot.target import ResolvedTarget
from p2pmodel.origin.origin import Origin
from p2pmodel.swarm.metainfo import Metainfo
from p2pmodel.trust.signatures.record import SignatureRecords, SignatureWarning
from p2pmodel.trust.signatures.statement import SignedStatement, SignedSubject

if TYPE_CHECKING:
    from p2pmodel.trust.signatures.verification import SignatureVerdict, Verified

HINT = "see 'p2pmodel provenance', and trust.rules in the settings"

Given = Sequence[SignedStatement]


@dataclass(slots=True)
class SignatureCheck:
    """Decides for one node by the keys that are allowed now."""

    settings: Settings
    reporter: Reporter
    http: HttpPool | None = None
    clock: Callable[[], float] = time.time
    _asked: dict[tuple[str, str], tuple[SignedStatement, ...]] = field(default_factory=dict)
    """What the coordinators answered."""
    _latest: tuple[Manifest, SignedSubject] | None = None

    async def checked(self, found: ResolvedTarget) -> ResolvedTarget:
        """`found`, with its signer as voucher. Raises Untrusted if a rule refuses it; warns once."""
        info_hash = found.metainfo.info_hash if found.metainfo else None
        verified = await self.require(found.manifest, info_hash, found.signatures, warned=found.warned)
        if verified is None:
            return replace(found, warned=self._rule(found.manifest) is not None)
        return replace(found, signatures=(verified.signed,), vouched_by=voucher_of_signer(verified))

    async def require(
        self, manifest: Manifest, info_hash: str | None = None, given: Given = (), *, warned: bool = False
    ) -> "Verified | None":
        """The signature of `manifest` with the torrent `info_hash` (None: without one). None where no rule requires
        one, or a missing one is a warning, which may have been given (`warned`). Raises Untrusted."""
        rule = self._rule(manifest)
        if rule is None:
            return None
        verdict = await self._verdict(rule, manifest, info_hash, given)
        if verdict.found is not None:
            await self._record(manifest, verdict.found)
            return verdict.found
        if rule.signature == "enforce":
            raise self._refused(manifest, info_hash, verdict.reason)
        if not warned:
            await self._warn(manifest, info_hash, verdict.reason)
        return None

    async def refusal(self, metainfo: Metainfo) -> Untrusted | None:
        """Why a torrent is refused; None if it is not."""
        rule = self._rule(metainfo.manifest)
        if rule is None or rule.signature != "enforce":
            return None
        verdict = await self._verdict(rule, metainfo.manifest, metainfo.info_hash, ())
        if verdict.found is not None:
            return None
        return self._refused(metainfo.manifest, metainfo.info_hash, verdict.reason)

    async def voucher(self, metainfo: Metainfo, given: Given = ()) -> str:
        """The signer of a torrent as a voucher of its manifest; "" where no rule holds, or no signature counts."""
        rule = self._rule(metainfo.manifest)
        if rule is None:
            return ""
        verdict = await self._verdict(rule, metainfo.manifest, metainfo.info_hash, given)
        return voucher_of_signer(verdict.found) if verdict.found else ""

    async def replaces_hashes(self, metainfo: Metainfo, given: Given = ()) -> bool:
        """Whether `trust.file_hashes` lets a signature replace the hashes of whole files: one over this very torrent,
        which states the hub's hash and the Merkle tree of each file, by a signer of a rule with `enforce`."""
        rule = self._rule(metainfo.manifest)
        if self.settings.trust.file_hashes == "always" or rule is None or rule.signature != "enforce":
            return False
        verdict = await self._verdict(rule, metainfo.manifest, metainfo.info_hash, given, over_files=False)
        return verdict.found is not None

    def _rule(self, manifest: Manifest) -> TrustRule | None:
        return rule_of(self.settings.trust.rules, manifest.repo)

    async def _verdict(
        self, rule: TrustRule, manifest: Manifest, info_hash: str | None, given: Given, *, over_files: bool = True
    ) -> "SignatureVerdict":
        """`over_files`: a statement over the files alone counts, too."""
        subject = replace(await self._subject(manifest, info_hash), over_files=over_files)
        kept = await asyncio.to_thread(signature_records(self.settings).statements, manifest.repo, manifest.commit)
        first = await asyncio.to_thread(self._judged, rule, subject, (*given, *kept))
        if first.found is not None:
            return first
        asked = await self._ask(manifest)
        return await asyncio.to_thread(self._judged, rule, subject, asked) if asked else first

    async def _subject(self, manifest: Manifest, info_hash: str | None) -> SignedSubject:
        """The digest of a long list takes a while: it is kept for the next question about the same manifest."""
        if self._latest is None or self._latest[0] is not manifest:
            self._latest = manifest, await asyncio.to_thread(SignedSubject.of, manifest, None)
        return replace(self._latest[1], info_hash=info_hash)

    def _judged(self, rule: TrustRule, subject: SignedSubject, statements: Given) -> "SignatureVerdict":
        from p2pmodel.trust.signatures.verification import read_verifier  # noqa: PLC0415 - imports cryptography

        trust = self.settings.trust
        assert trust.allowed_signers is not None
        verifier = read_verifier(trust.allowed_signers, trust.revoked_signers)
        return verifier.judge(statements, subject, self.clock(), signers=rule.signers)

    async def _ask(self, manifest: Manifest) -> tuple[SignedStatement, ...]:
        key = manifest.repo.folded, manifest.commit
        if key not in self._asked:
            timeout = self.settings.swarm.coordinator_timeout
            self._asked[key] = await find_signatures(
                manifest.repo, manifest.commit, configured(self.settings), timeout, http=self.http
            )
        return self._asked[key]

    async def _record(self, manifest: Manifest, verified: "Verified") -> None:
        with suppress(LocalResource):  # without a usable state folder the coordinators are asked again
            records, vouched = signature_records(self.settings), vouched_commits(self.settings)
            await asyncio.to_thread(records.record, manifest.repo, manifest.commit, verified.signed)
            await asyncio.to_thread(vouched.record, manifest, voucher_of_signer(verified), proven=False)

    async def _warn(self, manifest: Manifest, info_hash: str | None, reason: str) -> None:
        line = f"{_named(manifest, info_hash)}: {reason}; trust.rules only warn of it"
        self.reporter.note(notes.warning("signature_missing", line, repo=str(manifest.repo), commit=manifest.commit))
        with suppress(LocalResource):
            warning = SignatureWarning(reason, self.clock())
            await asyncio.to_thread(signature_records(self.settings).warn, manifest.repo, manifest.commit, warning)

    @staticmethod
    def _refused(manifest: Manifest, info_hash: str | None, reason: str) -> Untrusted:
        return Untrusted(f"{_named(manifest, info_hash)} is refused: {reason}", hint=HINT)


@dataclass(frozen=True, slots=True)
class CheckedListings:
    """What mirrors list, without what the rules refuse or further mirrors contradict."""

    origin: Origin
    check: SignatureCheck

    async def manifest(self, ref: Reference) -> Manifest:
        """As `Origin.manifest`. Raises Untrusted, and as `SecondOpinion`, too."""
        manifest = await self.origin.manifest(ref)
        await self.check.require(manifest)
        await SecondOpinion(self.check.settings, self.origin).require(manifest)
        return manifest


def voucher_of_signer(verified: "Verified") -> str:
    """How the voucher of a signature is named."""
    return f"{SIGNATURE} {printable(verified.signer.identity)}"


def signature_records(settings: Settings) -> SignatureRecords:
    """The statements on this node's disk."""
    state = settings.state_dir / "signatures" if settings.state_dir else None
    return SignatureRecords(state, settings.trust.signatures)


def _named(manifest: Manifest, info_hash: str | None) -> str:
    what = "the list of files" if info_hash is None else "the torrent"
    return f"{what} of {manifest.repo}@{manifest.commit}"
