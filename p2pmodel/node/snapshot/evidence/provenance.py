"""The provenance of a snapshot: which mirrors, signers and lines of the sync log say what of its list of files."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from p2pmodel.config.sections.trust import rule_of
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.coordinator.client.signatures import find_signatures
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.node.snapshot.evidence.model_signature_check import ModelSignatureVerdict, judge_model_signature
from p2pmodel.node.snapshot.evidence.second_opinion import confirmed_commits
from p2pmodel.node.snapshot.evidence.signature_check import signature_records
from p2pmodel.node.snapshot.evidence.voucher import vouched_commits
from p2pmodel.store.cache import HubCache
from p2pmodel.store.state.judgements import ConfirmedCommit
from p2pmodel.store.state.sync_log import SyncedFiles, synced_files
from p2pmodel.trust.signatures.record import SignatureWarning
from p2pmodel.trust.signatures.sshsig import parse_signature
from p2pmodel.trust.signatures.statement import SignedStatement, SignedSubject, manifest_digest
from p2pmodel.trust.signatures.verification import SignatureVerifier, read_verifier
from p2pmodel.trust.signatures.wire import Malformed

NOT_JUDGED = "no allowed signers are configured"


@dataclass(frozen=True, slots=True)
class StatedSignature:
    """One signed statement about the snapshot. `reason`: why it does not count; "" if it does."""

    signer: str
    key: str
    info_hash: str
    time: str
    reason: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """The evidence for the list of files of one snapshot in the cache.

    `vouched_by` is the record of a voucher, and `fits` whether that was of the same files.
    """

    manifest: Manifest
    vouched_by: str
    fits: bool
    confirmed: ConfirmedCommit | None
    rule: str
    signatures: tuple[StatedSignature, ...]
    warning: SignatureWarning | None
    synced: SyncedFiles | None
    model_signature: ModelSignatureVerdict | None

    def plain(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "repo": str(self.manifest.repo),
            "commit": self.manifest.commit,
            "manifest": manifest_digest(self.manifest),
            "files": len(self.manifest.files),
            "vouched_by": self.vouched_by or None,
            "same_files": self.fits,
            "confirmed": asdict(self.confirmed) if self.confirmed else None,
            "rule": self.rule,
            "signatures": [asdict(each) for each in self.signatures],
            "warned": asdict(self.warning) if self.warning else None,
            "model_signature": asdict(self.model_signature) if self.model_signature else None,
            "sync_log": asdict(self.synced) if self.synced else None,
        }


async def provenance_of(
    manifest: Manifest, settings: Settings, log: Path, *, clock: Callable[[], float] = time.time
) -> Provenance:
    """The provenance of `manifest`, by this node's records, its coordinators, and the sync log at `log`. Raises
    InvalidInput for files of the settings that cannot be used, IntegrityError for a changed log."""
    asked: tuple[SignedStatement, ...] = ()
    if not settings.offline:
        timeout = settings.swarm.coordinator_timeout
        asked = await find_signatures(manifest.repo, manifest.commit, configured(settings), timeout)
    return await asyncio.to_thread(_provenance, manifest, settings, log, asked, clock())


def _provenance(
    manifest: Manifest, settings: Settings, log: Path, asked: Sequence[SignedStatement], now: float
) -> Provenance:
    trust, records = settings.trust, signature_records(settings)
    cache = HubCache(settings.cache_dir, settings.state_dir)
    vouched, rule = vouched_commits(settings).of(manifest.repo, manifest.commit), rule_of(trust.rules, manifest.repo)
    verifier = read_verifier(trust.allowed_signers, trust.revoked_signers) if trust.allowed_signers else None
    statements = dict.fromkeys((*records.statements(manifest.repo, manifest.commit), *asked))
    wanted, subject = rule.signers if rule else (), SignedSubject.of(manifest, None)
    return Provenance(
        manifest=manifest,
        vouched_by=vouched.by if vouched else "",
        fits=vouched is None or vouched.fits(manifest),
        confirmed=confirmed_commits(settings).of(manifest),
        rule=rule.signature if rule else "off",
        signatures=tuple(_stated(each, subject, verifier, wanted, now) for each in statements),
        warning=records.warning(manifest.repo, manifest.commit),
        synced=synced_files(log, manifest) if log.is_file() else None,
        model_signature=judge_model_signature(cache.known(manifest.repo), manifest, settings),
    )


def _stated(
    signed: SignedStatement,
    subject: SignedSubject,
    verifier: SignatureVerifier | None,
    wanted: Sequence[str],
    now: float,
) -> StatedSignature:
    """One statement, judged as one over the files: whichever torrent it names."""
    signer = reason = ""
    if verifier is None:
        reason = NOT_JUDGED
    else:
        verdict = verifier.judge([signed], subject, now, signers=wanted)
        signer, reason = (verdict.found.signer.identity if verdict.found else ""), verdict.reason
    try:
        statement, key = signed.parsed(), parse_signature(signed.signature).key.fingerprint
    except Malformed as error:
        return StatedSignature("", "", "", "", str(error))
    return StatedSignature(signer, key, statement.info_hash, statement.time, reason)
