"""A publisher's statement over the files of a snapshot, and over its torrent if there is one, and its signature.

A statement is one line of canonical JSON (keys sorted, no spaces). A signed statement is that line and its SSHSIG
signature in the namespace `p2pmodel-snapshot`; `ssh-keygen -Y verify` accepts the two as a file and its signature.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId, is_commit
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import InvalidInput
from p2pmodel.trust.signatures.wire import MAX_SIGNATURE, Malformed

if TYPE_CHECKING:
    from p2pmodel.trust.signatures.signing_key import SigningKey

NAMESPACE = "p2pmodel-snapshot"
MAX_STATEMENT = 1024
"""Characters of the longest statement."""
MAX_STATEMENTS = 32
"""Signed statements in one file or answer."""
MAX_FILE = MAX_STATEMENTS * 2 * (MAX_STATEMENT + MAX_SIGNATURE)
"""Bytes of the longest file of signed statements."""
SUFFIX = ".signatures"
"""Suffix of the file of signed statements beside a .torrent."""

_VERSION = 1
_KEYS = {"commit", "info_hash", "manifest", "repo", "time", "v"}
_HASH = re.compile(r"[0-9a-f]{64}")
_INFO_HASH = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{40})?")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Statement:
    """`manifest` is the digest of the files; `info_hash` the torrent's, "" for a statement over the files alone."""

    repo: RepoId
    commit: str
    manifest: str
    info_hash: str
    time: str
    """When it was made, UTC. For display: what counts is whether the key is valid now."""

    @classmethod
    def over(cls, manifest: Manifest, info_hash: str, now: float) -> "Statement":
        """The statement over `manifest`, made `now` (seconds since 1970)."""
        made = datetime.fromtimestamp(now, UTC).strftime(_TIME)
        return cls(manifest.repo, manifest.commit, manifest_digest(manifest), info_hash, made)

    @property
    def text(self) -> str:
        """The text that is signed."""
        plain = {"commit": self.commit, "info_hash": self.info_hash, "manifest": self.manifest, "repo": str(self.repo)}
        return _canonical(plain | {"time": self.time, "v": _VERSION})

    def difference(self, subject: "SignedSubject") -> str:
        """Why it is not a statement over `subject`; "" if it is."""
        if not self.repo.is_spelling_of(subject.repo) or self.commit != subject.commit:
            return f"it is of {self.repo}@{self.commit[:8]}"
        if self.manifest != subject.manifest:
            return "it is of other files"
        if subject.info_hash is not None and self.info_hash not in ("", subject.info_hash):
            return "it is of another torrent"
        if not (self.info_hash or subject.over_files):
            return "it is of the files, not of their torrent"
        return ""


@dataclass(frozen=True, slots=True)
class SignedSubject:
    """The subject of a statement: the files with this digest, and their torrent (None: there is none)."""

    repo: RepoId
    commit: str
    manifest: str
    info_hash: str | None
    over_files: bool = True
    """Whether a statement over the files alone counts, too."""

    @classmethod
    def of(cls, manifest: Manifest, info_hash: str | None) -> "SignedSubject":
        """The subject of `manifest`. The digest takes a second for 200,000 files. Blocks."""
        return cls(manifest.repo, manifest.commit, manifest_digest(manifest), info_hash)


@dataclass(frozen=True, slots=True)
class SignedStatement:
    """A statement as it was signed, and its signature in text form. Neither is verified."""

    statement: str
    signature: str = field(repr=False)

    @classmethod
    def by(cls, key: "SigningKey", statement: Statement) -> "SignedStatement":
        """`statement`, signed by `key`. Raises LocalResource. Blocks."""
        return cls(statement.text, key.sign(statement.text.encode(), NAMESPACE))

    @property
    def plain(self) -> dict[str, str]:
        """As JSON data."""
        return {"signature": self.signature, "statement": self.statement}

    def parsed(self) -> Statement:
        """The statement. Raises Malformed."""
        return parse_statement(self.statement)


def parse_statement(text: str) -> Statement:
    """The statement in `text`, which has exactly its canonical form. Raises Malformed."""
    try:
        plain = parse_json(text) if len(text) <= MAX_STATEMENT else None
    except ValueError:
        plain = None
    if not isinstance(plain, dict) or plain.keys() != _KEYS or plain["v"] != _VERSION or _canonical(plain) != text:
        raise Malformed("its statement is malformed or of a later version")
    fields = [plain[key] for key in ("commit", "manifest", "info_hash", "time", "repo")]
    if not all(isinstance(each, str) for each in fields):
        raise Malformed("its statement is malformed")
    commit, manifest, info_hash, made, repo = fields
    try:
        datetime.strptime(made, _TIME).replace(tzinfo=UTC)
        named = RepoId(repo)
    except (ValueError, InvalidInput):
        raise Malformed("its statement is malformed") from None
    if not (is_commit(commit) and _HASH.fullmatch(manifest) and _INFO_HASH.fullmatch(info_hash)):
        raise Malformed("its statement is malformed")
    return Statement(named, commit, manifest, info_hash, made)


def manifest_digest(manifest: Manifest) -> str:
    """sha256 over repository, commit and files: canonical JSON of `Manifest.to_dict` without `private`, which depends
    on the token of the node that asked."""
    plain = {key: value for key, value in manifest.to_dict().items() if key != "private"}
    return hashlib.sha256(_canonical(plain).encode()).hexdigest()


def written(statements: Iterable[SignedStatement]) -> bytes:
    """The file of signed statements."""
    plain = {"signatures": [each.plain for each in statements], "v": _VERSION}
    return json.dumps(plain, indent=1).encode() + b"\n"


def read(data: bytes) -> tuple[SignedStatement, ...]:
    """The signed statements in a file or an answer. Raises Malformed."""
    try:
        return tuple(map(signed_statement, parse_json(data)["signatures"][:MAX_STATEMENTS]))
    except (ValueError, TypeError, LookupError):
        raise Malformed("it is not a list of signed statements") from None


def signed_statement(plain: Any) -> SignedStatement:
    """The inverse of `SignedStatement.plain`. Raises Malformed."""
    statement, signature = (plain.get(k) if isinstance(plain, dict) else None for k in ("statement", "signature"))
    if not (isinstance(statement, str) and isinstance(signature, str)):
        raise Malformed("it is not a signed statement")
    if len(statement) > MAX_STATEMENT or len(signature) > MAX_SIGNATURE:
        raise Malformed("it is longer than a signed statement may be")
    return SignedStatement(statement, signature)


def _canonical(plain: dict[str, Any]) -> str:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))
