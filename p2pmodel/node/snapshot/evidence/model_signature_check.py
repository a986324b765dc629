"""The `model.sig` of a snapshot in the cache, compared with the snapshot's manifest."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import EntryNotFound
from p2pmodel.node.snapshot.local import not_cached
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.folder import open_regular, read_regular
from p2pmodel.trust.signatures.model_keys import read_model_keys
from p2pmodel.trust.signatures.model_signature import MAX_MODEL_SIGNATURE, MODEL_SIGNATURE, parse_model_signature
from p2pmodel.trust.signatures.wire import Malformed


@dataclass(frozen=True, slots=True)
class ModelSignatureVerdict:
    """The verdict on a `model.sig` in a snapshot: its signer, or why it does not count."""

    signer: str
    reason: str = ""


def judge_model_signature(
    repo: RepoCache, manifest: Manifest, settings: Settings, *, clock: Callable[[], float] = time.time
) -> ModelSignatureVerdict | None:
    """The verdict; None where the snapshot has no `model.sig`, or `trust.model_keys` is not set.

    Hashes of LFS files are those of the manifest. Of the others, which the hub names by another hash, the blobs are
    hashed: they are small. Raises InvalidInput for keys that cannot be used. Blocks.
    """
    file = manifest.file(MODEL_SIGNATURE)
    if file is None or settings.trust.model_keys is None:
        return None
    keys = read_model_keys(settings.trust.model_keys)
    try:
        signature = parse_model_signature(read_regular(_blob(repo, manifest, file), MAX_MODEL_SIGNATURE))
        signer = keys.signer(signature, clock())
        difference = signature.files().difference(sha256_by_path(repo, manifest))
    except EntryNotFound as error:
        return ModelSignatureVerdict("", error.what)
    except (Malformed, OSError) as error:
        return ModelSignatureVerdict("", str(error) if isinstance(error, Malformed) else "it cannot be read")
    return ModelSignatureVerdict("" if difference else signer, difference)


def sha256_by_path(repo: RepoCache, manifest: Manifest) -> dict[str, str]:
    """sha256 of every file of a snapshot but its `model.sig`. Raises EntryNotFound. Blocks."""
    return {
        file.path: file.sha256 or _sha256(repo, manifest, file)
        for file in manifest.files
        if file.path != MODEL_SIGNATURE
    }


def _sha256(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> str:
    with os.fdopen(open_regular(_blob(repo, manifest, file)), "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _blob(repo: RepoCache, manifest: Manifest, file: ManifestFile) -> Path:
    blob = repo.usable(file)
    if blob is None:
        raise not_cached(manifest, file)
    return blob
