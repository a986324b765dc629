"""The error that a job or look-up ends with if no mirror helped: the most specific of their failures."""

from collections.abc import Iterable, Mapping, Sequence

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.errors import (
    AccessDenied,
    EntryNotFound,
    GatedRepo,
    IntegrityError,
    NotFound,
    P2PModelError,
    RepoNotFound,
    RevisionNotFound,
    Unavailable,
    WrongBytes,
)
from p2pmodel.origin.failures import Refused

TOKEN_HINT = "set HF_TOKEN, or token_env of that mirror in p2pmodel.toml, to a token that may read it"  # noqa: S105
_RESUME_HINT = "check the network and run the same command again: it resumes"
_REFUSED_HINT = "correct these mirrors, or name another one: it resumes then"

_SPECIFIC: tuple[type[P2PModelError], ...] = (
    WrongBytes,
    GatedRepo,
    AccessDenied,
    IntegrityError,
    RevisionNotFound,
    RepoNotFound,
    EntryNotFound,
)


def most_specific(kinds: Iterable[type[P2PModelError]]) -> type[P2PModelError]:
    """The most specific of `kinds`; Unavailable if none is specific."""
    found = set(kinds)
    return next((kind for kind in _SPECIFIC if kind in found), Unavailable)


def hint_for(kind: type[P2PModelError]) -> str:
    """The hint for the user."""
    if issubclass(kind, AccessDenied):
        return TOKEN_HINT
    return _RESUME_HINT if kind is Unavailable else ""


def listed(reasons: Mapping[str, str], names: Sequence[str]) -> str:
    """Every mirror with its reason, on one line."""
    return ", ".join(f"{name}: {reasons.get(name) or 'did not answer'}" for name in names)


def verdict(
    manifest: Manifest,
    file: ManifestFile,
    names: Sequence[str],
    refusals: Mapping[str, Refused],
    reasons: Mapping[str, str],
) -> P2PModelError:
    """The error for a `file` that did not come. `names`: all mirrors; one without a refusal may help later."""
    what = f"{file.path} of {manifest.repo}@{manifest.commit[:12]}"
    if not names:
        return Unavailable(f"no source for {what}: no mirror is configured for it")
    every = listed(reasons, names)
    kind = Unavailable if set(names) - set(refusals) else most_specific(r.error for r in refusals.values())
    if kind is WrongBytes:
        return _wrong_bytes(file, {n: r for n, r in refusals.items() if r.error is WrongBytes})
    if issubclass(kind, AccessDenied):
        return kind(f"no mirror gives access to {what} ({every})", hint=hint_for(kind))
    if issubclass(kind, NotFound):
        return kind(f"no mirror has {what} ({every})")
    final = not set(names) - set(refusals)
    return Unavailable(f"no mirror delivers {what} ({every})", hint=_REFUSED_HINT if final else _RESUME_HINT)


def _wrong_bytes(file: ManifestFile, corrupt: Mapping[str, Refused]) -> WrongBytes:
    source = ("mirror " if len(corrupt) == 1 else "mirrors ") + " and ".join(corrupt)
    got = ", ".join(dict.fromkeys(r.got for r in corrupt.values()))
    return WrongBytes(source, file.path, expected(file), got)


def expected(file: ManifestFile) -> str:
    """The file's expected hash with its kind, for messages."""
    return f"{'sha256' if file.is_lfs else 'git blob id'} {file.etag}"
